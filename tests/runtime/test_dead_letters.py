"""Dead letters, decided about: replayed by the shard that buried them, or let go; each once."""

from dataclasses import replace as but
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import ACTORS
from actors.actor import CallAnswered, Due, Heard, States, Step
from actors.order import OrderActor
from actors.payment import PaymentActor
from messages.codec import FOREIGN_BYTES_MAX, wire_class
from messages.generated.orders.v1 import PaymentTaken
from messages.record import Cursor, Envelope, Letter, Record, encode_record, frame, unframe
from runtime.dead_letters import Buried, LetterError, drop, read_letters, replay
from runtime.gateway_contract import Reply, Request
from runtime.letters import order_of, store_letter
from runtime.log import BrokerLostError
from runtime.memory import MemoryLog, MemoryStore
from runtime.recall import LETTERS, Address
from runtime.simulator import Simulator
from supervisors import ChildCrashed


class Moody:
    """What cannot be borne, by any actor; until it can."""

    unbearable: tuple[tuple[str, str], ...] = ()

    @classmethod
    def hear(cls, heard: Heard) -> None:
        if (type(heard).__name__, order_of(heard)) in cls.unbearable:
            raise ValueError(f"cannot bear {type(heard).__name__} about {order_of(heard)}")


class MoodyOrder(OrderActor):
    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        Moody.hear(heard)
        return super().react(states, heard, now_ms)


class MoodyPayment(PaymentActor):
    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        Moody.hear(heard)
        return super().react(states, heard, now_ms)


@pytest.fixture
async def moody(shop: Any, monkeypatch: pytest.MonkeyPatch) -> type[Moody]:
    monkeypatch.setitem(
        ACTORS, "order", lambda terms, _: MoodyOrder(reservation_ttl_ms=terms.reservation_ttl_ms)
    )
    monkeypatch.setitem(
        ACTORS,
        "payment",
        lambda terms, _: MoodyPayment(
            deadline_ms=terms.payment_deadline_ms, settle_ms=terms.payment_settle_ms
        ),
    )
    monkeypatch.setattr(Moody, "unbearable", ())
    await shop.process.stop()
    await shop.start()
    await shop.wait_running()
    return Moody


async def only_letter(shop: Any, *, still_open: bool = True) -> Buried:
    """The one letter that is open, once there is one."""
    while True:
        letters = await read_letters(MemoryLog(shop.store))
        found = [buried for buried in letters.values() if buried.is_open is still_open]
        if found:
            (buried,) = found
            return buried
        await trio.sleep(0.25)


async def replay_it(shop: Any, buried: Buried) -> int:
    return (await replay(MemoryLog(shop.store), buried, "me@here")).replayed_as


@pytest.mark.parametrize("kind", ["OrderCreated", "StockReserved", "PaymentTaken", "CallAnswered"])
@pytest.mark.parametrize("when", ["beside a running instance", "while none runs", "twice"])
async def test_what_is_replayed_is_heard_as_if_nothing_had_been(
    shop: Any, moody: type[Moody], kind: str, when: str, autojump_clock: MockClock
) -> None:
    moody.unbearable = ((kind, "o1"),)
    await shop.publish("o1", bytes(shop.order("o1")))
    buried = await only_letter(shop)
    assert (buried.letter.type, buried.letter.correlation_id) == (kind, "o1")
    moody.unbearable = ()
    if when == "while none runs":
        shop.process.kill()
    for _ in range(2 if when == "twice" else 1):
        await replay_it(shop, buried)
    if when == "while none runs":
        await shop.start()
    await shop.wait_status("o1", "confirmed")
    await trio.sleep(5)
    assert shop.taken_minor("o1") == 100
    told_again = (kind, when) == ("PaymentTaken", "twice")  # To payment alone, which has forgotten.
    assert shop.said()["OrderConfirmed", "o1"] == 1 + told_again
    assert (await shop.stocks())["a"].sold == 1
    decided = await only_letter(shop, still_open=False)
    assert decided.decision is not None
    assert (decided.decision.decision, decided.decision.by) == ("replayed", "me@here")


class Forgetful:
    """A provider that can be asked by reference, and remembers idempotency keys for so long only."""

    def __init__(self, simulator: Simulator, keeps_s: float) -> None:
        self._simulator, self._keeps_s = simulator, keeps_s
        self._first_s: dict[str, float] = {}

    async def send(self, request: Request) -> Reply:
        now_s = trio.current_time()
        if now_s - self._first_s.setdefault(request.key, now_s) > self._keeps_s:
            self._first_s[request.key] = now_s
        key = f"{request.key}@{self._first_s[request.key]}" if request.key else ""
        return await self._simulator.send(but(request, key=key))


async def test_a_charge_whose_answer_was_buried_is_asked_about_before_it_is_made_again(
    shop: Any, moody: type[Moody], autojump_clock: MockClock
) -> None:
    shop.process.kill()
    await shop.start("i2", provider=Forgetful(shop.simulator, keeps_s=30))
    moody.unbearable = ((CallAnswered.__name__, "o1"),)
    await shop.place("o1")
    await trio.sleep(600)
    assert len(shop.ledger.captures("o1")) == 1
    moody.unbearable = ()
    await shop.wait_status("o1", "confirmed")
    assert shop.taken_minor("o1") == 100


async def test_a_payment_that_is_over_and_begun_anew_by_a_replay_takes_nothing_and_ends(
    shop: Any, moody: type[Moody], autojump_clock: MockClock
) -> None:
    shop.process.kill()
    await shop.start("i2", provider=Forgetful(shop.simulator, keeps_s=86_400))
    moody.unbearable = (("OrderReserved", "o1"),)
    await shop.place("o1")
    buried = await only_letter(shop)
    moody.unbearable = ()
    await replay_it(shop, buried)
    await shop.wait_status("o1", "confirmed")
    await trio.sleep(2 * 86_400)
    await replay(MemoryLog(shop.store), buried, "me@here")
    await trio.sleep(100)
    assert len(shop.ledger.captures("o1")) == 1
    assert (await shop.recalled("payment", 0)).live == {}


async def test_a_replayed_deadline_rings_again(
    shop: Any, moody: type[Moody], autojump_clock: MockClock
) -> None:
    moody.unbearable = ((Due.__name__, "o1"),)
    await shop.process.supervisor.find("actors").stop_child("inventory.1")
    await shop.place("o1")
    buried = await only_letter(shop)
    moody.unbearable = ()
    began_s = trio.current_time()
    await replay_it(shop, buried)
    await shop.wait_status("o1", "cancelled")
    assert trio.current_time() - began_s < 10  # By itself it does so after a minute.


async def test_what_fails_again_is_another_letter_that_names_the_first_one(
    shop: Any, moody: type[Moody], autojump_clock: MockClock
) -> None:
    moody.unbearable = (("StockReserved", "o1"),)
    await shop.place("o1")
    first = await only_letter(shop)
    await replay_it(shop, first)
    second = await only_letter(shop)
    assert (first.replay_of, second.replay_of) == ("", first.id)
    moody.unbearable = ()
    await replay_it(shop, second)  # The replay of a replay.
    await shop.wait_status("o1", "confirmed")


async def test_an_order_goes_in_again_by_its_own_bytes_though_the_letter_has_but_their_beginning(
    shop: Any, autojump_clock: MockClock
) -> None:
    payload = bytes(range(256)) * 1_000
    seq = await shop.publish("junk", payload)
    buried = await only_letter(shop)
    replayed_as = await replay_it(shop, buried)
    first, again = shop.store.entries[seq - 1], shop.store.entries[replayed_as - 1]
    assert len(payload) > FOREIGN_BYTES_MAX
    assert (again.subject, again.payload) == (first.subject, payload)
    assert again.headers == {"Orders-Replay-Of": buried.id}
    assert (await only_letter(shop)).replay_of == buried.id


async def test_if_we_die_before_the_decision_is_stored_the_letter_is_open_and_may_be_replayed_again(
    shop: Any, moody: type[Moody], autojump_clock: MockClock
) -> None:
    moody.unbearable = (("StockReserved", "o1"),)
    await shop.place("o1")
    buried = await only_letter(shop)
    moody.unbearable = ()
    log = MemoryLog(shop.store)

    async def die(subject: str, _: bytes) -> None:
        if subject.startswith(LETTERS):
            raise BrokerLostError("gone")

    log.before_append = die
    with pytest.raises(BrokerLostError):
        await replay(log, buried, "me")
    assert (await only_letter(shop)).id == buried.id
    await replay_it(shop, buried)
    await shop.wait_status("o1", "confirmed")
    assert shop.taken_minor("o1") == 100


async def test_a_letter_that_is_dropped_stays_with_the_reason_and_nobody_hears_of_it(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.publish("junk", b"junk")
    buried = await only_letter(shop)
    await drop(MemoryLog(shop.store), buried, "me@here", "a test of theirs")
    before = len(shop.store.entries)
    await trio.sleep(1)
    assert len(shop.store.entries) == before
    dropped = await only_letter(shop, still_open=False)
    assert dropped.decision is not None
    assert (dropped.decision.decision, dropped.decision.reason) == ("dropped", "a test of theirs")


# --- what this version cannot read


FUTURE = "FromTheFuture"


def record_of_the_future() -> bytes:
    """One fact that only a newer version knows."""
    taken = Envelope(PaymentTaken("o1"), "o1")
    made = wire_class("Record").FromString(
        unframe(encode_record(Record("a/1", 1, Cursor(), facts=[taken])))
    )
    made.facts[0].type = FUTURE
    return frame(made.SerializeToString())


@pytest.mark.parametrize("payload", [record_of_the_future(), b"no record at all"])
async def test_what_nobody_could_read_is_replayed_only_by_a_version_that_can(
    shop: Any, payload: bytes, autojump_clock: MockClock
) -> None:
    await MemoryLog(shop.store).append("ORDER.journal.shipping.0", payload)
    buried = await only_letter(shop)
    assert buried.letter.retryable
    with pytest.raises(LetterError, match="this version cannot read it either"):
        await replay_it(shop, buried)
    assert (await only_letter(shop)).id == buried.id
    await shop.place("o2")
    await shop.wait_status("o2", "confirmed")
    assert not [report for report in shop.process.reports if isinstance(report, ChildCrashed)]


async def test_after_an_upgrade_what_nobody_could_read_reaches_all_whom_it_is_for(
    shop: Any, autojump_clock: MockClock
) -> None:
    """The letters are those of an older version; this one can read what they are about."""
    await shop.place("o1", "tok_slow")
    taken = Envelope(PaymentTaken(order_id="o1", charge_id="c1"), "o1")
    log = MemoryLog(shop.store)
    record = encode_record(Record("a/1", 1, Cursor(), facts=[taken]))
    await shop.process.stop()
    journal = "ORDER.journal.shipping.0"
    seq = await log.append(journal, record)
    # As an older version leaves it: parked with a shard that the fact is not for.
    fact = Letter(seq, 0, "PaymentTaken", b"", "unknown", subject=journal, retryable=True)
    await store_letter(log, Address("inventory", 1), fact, "")
    whole = Letter(seq, 0, "Record", b"", "unknown", subject=journal, retryable=True)
    await store_letter(log, Address("payment", 0), whole, "")
    fact_letter, whole_letter = (await read_letters(log)).values()
    for buried in (fact_letter, whole_letter):
        replayed_as = await replay_it(shop, buried)
        again = shop.store.entries[replayed_as - 1]
        assert again.subject == f"ORDER.again.{buried.shard}"
    await shop.start()
    await shop.wait_status("o1", "confirmed")


# --- what strangers put there


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\xff\xff", "it can only be dropped"),
        (b"", "nothing that anybody hears"),
    ],
)
async def test_what_is_no_letter_is_listed_and_can_be_dropped_and_not_replayed(
    payload: bytes, why: str
) -> None:
    log = MemoryLog()
    await log.append("ORDER.dead.order.0", payload)
    (buried,) = (await read_letters(log)).values()
    assert buried.id == "ORDER.dead.order.0.1"
    with pytest.raises(LetterError, match=why):
        await replay(log, buried, "me")
    await drop(log, buried, "me", "no letter")
    (decided,) = (await read_letters(log)).values()
    assert not decided.is_open


async def test_a_letter_that_says_something_else_than_the_log_is_not_believed() -> None:
    """A stranger's letter can name a fact; what is heard again is the fact."""
    log = MemoryLog(MemoryStore())
    said = Envelope(PaymentTaken(order_id="o1", charge_id="c1"), "o1")
    seq = await log.append(
        "ORDER.journal.payment.0", encode_record(Record("a/1", 1, Cursor(), facts=[said]))
    )
    forged = bytes(PaymentTaken(order_id="o2", charge_id="c2"))
    await store_letter(log, Address("order", 0), Letter(seq, 0, "PaymentTaken", forged, ""), "")
    (buried,) = (await read_letters(log)).values()
    decision = await replay(log, buried, "me")
    again = log.store.entries[decision.replayed_as - 1]
    assert b"o2" not in again.payload
    assert b"c1" in again.payload
    await store_letter(log, Address("order", 1), Letter(seq, 9, "PaymentTaken", forged, ""), "")
    *_, wrong = (await read_letters(log)).values()
    with pytest.raises(LetterError, match="no such fact"):
        await replay(log, wrong, "me")
