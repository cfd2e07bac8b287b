"""The shard host on the memory log: groups, fences, poison, deadlines."""

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import ACTORS
from actors.actor import CallAnswered, Due, Heard, Outcome, States, Step
from actors.order import OrderActor
from actors.order_state import TERMINAL
from actors.payment import PaymentActor
from messages.generated.orders.v1 import Line, OrderOpened, StockRefused
from messages.record import Cursor, Envelope, RawRecord, Record, encode_record
from messages.routing import shard_of
from runtime import shard as module
from runtime.gateway import NoReplyError
from runtime.gateway_contract import Reply, Request
from runtime.letters import order_of
from runtime.log import BrokerLostError, SupersededError
from runtime.mailbox import Ask, AskFailedError
from runtime.memory import MemoryLog
from runtime.past import ATTEMPTS_MAX
from runtime.recall import LETTERS, Address
from runtime.simulator import Simulator
from supervisors import ChildCrashed

ORDER_0, INVENTORY_1 = Address("order", 0), Address("inventory", 1)  # Where `a`, `b` and `c` are.
OF_SHARD_0 = [key for n in range(200) if shard_of(key := f"o{n}", 2) == 0]
MINUTE_S = 60.0

Hook = Callable[[str, bytes], Awaitable[None]]


async def test_an_order_is_confirmed(shop: Any, autojump_clock: MockClock) -> None:
    answer = await shop.place("o1", a=2, b=1)
    assert (answer.outcome, answer.status) == (Outcome.DONE, "pending")
    view = await shop.wait_status("o1", "confirmed")
    assert [line["status"] for line in view["history"]] == ["pending", "reserved", "confirmed"]
    assert shop.taken_minor("o1") == 300
    await trio.sleep(1)
    assert (await shop.stocks())["a"].sold == 2


# --- groups


@pytest.fixture
def slow_append(shop: Any) -> Iterator[list[str]]:
    """Each append to order.0 takes a second; says which have begun."""
    begun: list[str] = []

    async def linger(subject: str, _payload: bytes) -> None:
        if subject == ORDER_0.journal:
            begun.append(subject)
            await trio.sleep(1)

    shop.process.log.before_append = linger
    yield begun
    shop.process.log.before_append = None


async def test_what_arrives_during_an_append_shares_the_next_record(
    shop: Any, slow_append: list[str], autojump_clock: MockClock
) -> None:
    before = len(shop.records(ORDER_0))
    async with trio.open_nursery() as customers:
        customers.start_soon(shop.place, OF_SHARD_0[0])
        await trio.sleep(0.5)
        assert len(slow_append) == 1
        for order_id in OF_SHARD_0[1:51]:
            customers.start_soon(shop.place, order_id)
        await trio.sleep(1)
    records = shop.records(ORDER_0)[before:]
    opened = [sum(type(e.fact).__name__ == "OrderOpened" for e in r.facts) for r in records]
    assert opened[:2] == [1, 50]


async def test_an_ask_is_answered_only_once_its_record_is_stored(
    shop: Any, slow_append: list[str], autojump_clock: MockClock
) -> None:
    asked = await shop.process.shards.ask("order", OF_SHARD_0[0], shop.order(OF_SHARD_0[0]))
    await trio.sleep(0.9)
    assert not asked.settled.is_set()
    assert await shop.process.views.get(OF_SHARD_0[0]) is None
    await trio.sleep(0.2)
    assert asked.settled.is_set()


async def test_asks_that_are_put_back_are_answered_with_a_later_group(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES_MAX", 100)
    before = len(shop.records(ORDER_0))
    asks = [Ask(shop.order(order_id)) for order_id in OF_SHARD_0[:20]]
    for ask in asks:
        shop.process.shard("order").mailbox.ask(ask)
    answers = [await ask.wait_answered() for ask in asks]
    assert {answer.outcome for answer in answers} == {Outcome.DONE}
    assert len(shop.records(ORDER_0)) - before >= 10


async def test_a_record_read_in_several_groups_leaves_cursors_that_count_its_facts(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.process.log.before_append = _narrow_readers(monkeypatch)
    seq = await _open_many(shop, 8)
    await shop.wait_status(OF_SHARD_0[7], "confirmed")
    cursors = [r.cursor for r in shop.records(INVENTORY_1) if r.cursor >= Cursor(seq - 1, 1)]
    in_between = [cursor.skip for cursor in cursors if cursor.seq == seq - 1]
    assert len(in_between) >= 3
    assert in_between == sorted(set(in_between))
    assert cursors[len(in_between)] >= Cursor(seq)


@pytest.mark.parametrize("stored", [0, 1, 2])
@pytest.mark.parametrize("answer_lost", [False, True])
async def test_a_crash_in_the_middle_of_a_record_loses_no_fact_and_repeats_none(
    shop: Any,
    stored: int,
    answer_lost: bool,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = _narrow_readers(monkeypatch)
    appends = 0

    async def crash(subject: str, _payload: bytes) -> None:
        nonlocal appends
        await narrow(subject, b"")
        if subject == INVENTORY_1.journal:
            appends += 1
            if appends == stored + 1:
                raise BrokerLostError("lost by a test")

    log: MemoryLog = shop.process.log
    log.after_append, log.before_append = (crash, narrow) if answer_lost else (None, crash)
    await _open_many(shop, 8)
    for order_id in OF_SHARD_0[:8]:
        await shop.wait_status(order_id, "confirmed")
    await trio.sleep(5)
    said = shop.said()
    assert {said["StockReserved", order_id] for order_id in OF_SHARD_0[:8]} == {1}
    stock = (await shop.stocks())["a"]
    assert (stock.on_hand, stock.reserved, stock.sold) == (92, 0, 8)


def _narrow_readers(monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Let groups hold little, once order.0 has made a large one."""

    async def narrow(subject: str, _payload: bytes) -> None:
        if subject == ORDER_0.journal:
            monkeypatch.setattr(module, "GROUP_BYTES_MAX", 60)

    return narrow


async def _open_many(shop: Any, count: int) -> Any:
    """Have orders opened in one record; returns its position."""
    asks = [Ask(shop.order(order_id)) for order_id in OF_SHARD_0[:count]]
    for ask in asks:
        shop.process.shard("order").mailbox.ask(ask)
    for ask in asks:
        await ask.wait_answered()
    journal = [entry for entry in shop.store.entries if entry.subject == ORDER_0.journal]
    facts = {entry.seq: RawRecord(entry.payload).facts for entry in journal}
    return next(seq for seq, owed in facts.items() if len(owed) == count)


async def test_an_append_that_nobody_answers_does_not_count_as_stored(
    shop: Any, autojump_clock: MockClock
) -> None:
    async def hang(subject: str, _payload: bytes) -> None:
        shop.process.log.before_append = None
        await trio.sleep_forever()

    shop.process.log.before_append = hang
    with pytest.raises(AskFailedError):
        await shop.process.ask("order", OF_SHARD_0[0], shop.order(OF_SHARD_0[0]))
    await shop.place(OF_SHARD_0[0])
    await shop.wait_status(OF_SHARD_0[0], "confirmed")


async def test_a_stop_during_an_append_lets_it_finish_and_answers(
    shop: Any, slow_append: list[str], autojump_clock: MockClock
) -> None:
    asked = await shop.process.shards.ask("order", OF_SHARD_0[0], shop.order(OF_SHARD_0[0]))
    await trio.sleep(0.5)
    await shop.process.stop()
    assert (await asked.wait_answered()).outcome == Outcome.DONE


async def test_a_shard_that_stops_fails_the_asks_that_wait(
    shop: Any, slow_append: list[str], autojump_clock: MockClock
) -> None:
    first = await shop.process.shards.ask("order", OF_SHARD_0[0], shop.order(OF_SHARD_0[0]))
    await trio.sleep(0.5)
    second = await shop.process.shards.ask("order", OF_SHARD_0[1], shop.order(OF_SHARD_0[1]))
    await shop.process.stop()
    await first.wait_answered()
    with pytest.raises(AskFailedError):
        await second.wait_answered()


# --- fences


async def test_a_newer_instance_takes_the_shards_over_and_the_older_stores_nothing_more(
    shop: Any, autojump_clock: MockClock
) -> None:
    older = shop.process
    newer = await shop.start("i2")
    await shop.wait_running()
    with pytest.raises(AskFailedError):
        await older.ask("order", "o1", shop.order("o1"))
    await older.ended.wait()
    assert isinstance(older.error, BaseExceptionGroup | SupersededError)
    assert "instance i2" in "".join(map(str, _leaves(older.error)))
    await shop.place("o1")
    await shop.wait_status("o1", "confirmed")
    assert newer.error is None
    for address in newer.shards.addresses():
        owners = [record.owner[:2] for record in shop.records(address)]
        assert owners == sorted(owners)


async def test_an_append_under_way_at_the_take_over_is_refused(
    shop: Any, slow_append: list[str], autojump_clock: MockClock
) -> None:
    zombie = await shop.process.shards.ask("order", OF_SHARD_0[0], shop.order(OF_SHARD_0[0]))
    await trio.sleep(0.5)
    await shop.start("i2")
    await shop.wait_running()
    with pytest.raises(AskFailedError):
        await zombie.wait_answered()
    assert shop.said()["OrderOpened", OF_SHARD_0[0]] == 0


async def test_who_never_owned_a_shard_does_not_take_a_dead_predecessor_for_a_successor(
    shop: Any, autojump_clock: MockClock
) -> None:
    shop.process.kill()
    log = MemoryLog(shop.store)
    refused: list[str] = []

    async def refuse(subject: str, _payload: bytes) -> None:
        if subject == ORDER_0.journal and not refused:
            refused.append(subject)
            raise BrokerLostError("lost by a test")

    log.before_append = refuse
    process = await shop.start("i2", log)
    with trio.move_on_after(5):
        await process.ended.wait()  # A first start that fails is not tried again.
    async with trio.open_nursery() as nursery:
        again = (ORDER_0, lambda: process._surroundings)
        await nursery.start(process.shards.run, *again)
        nursery.cancel_scope.cancel()
    assert refused


def _leaves(error: BaseException | None) -> list[BaseException | None]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


# --- poison


class Touchy(OrderActor):
    """Cannot bear to hear some things about some orders."""

    unbearable: frozenset[tuple[str, str]] = frozenset()

    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        if (type(heard).__name__, order_of(heard)) in self.unbearable:
            raise ValueError(f"cannot bear {type(heard).__name__} about {order_of(heard)}")
        return super().react(states, heard, now_ms)


@pytest.fixture
async def touchy(shop: Any, monkeypatch: pytest.MonkeyPatch) -> type[Touchy]:
    monkeypatch.setitem(
        ACTORS, "order", lambda terms, _: Touchy(reservation_ttl_ms=terms.reservation_ttl_ms)
    )
    monkeypatch.setattr(Touchy, "unbearable", frozenset())
    await shop.process.stop()
    await shop.start()
    await shop.wait_running()
    return Touchy


def _crashes(shop: Any) -> int:
    return sum(isinstance(report, ChildCrashed) for report in shop.process.reports)


@pytest.mark.parametrize("kind", ["StockReserved", "PaymentTaken"])
async def test_a_fact_that_cannot_be_borne_is_tried_again_and_then_buried_alone(
    shop: Any, touchy: type[Touchy], kind: str, autojump_clock: MockClock
) -> None:
    touchy.unbearable = frozenset({(kind, OF_SHARD_0[3])})
    await _open_many(shop, 8)
    for order_id in OF_SHARD_0[:8]:
        if order_id != OF_SHARD_0[3]:
            await shop.wait_status(order_id, "confirmed")
    await trio.sleep(30)
    (letter,) = shop.letters()
    assert (letter.type, letter.correlation_id) == (kind, OF_SHARD_0[3])
    assert (letter.attempts, letter.retryable) == (ATTEMPTS_MAX, True)
    assert letter.reason.count("ValueError: cannot bear") == ATTEMPTS_MAX
    assert _crashes(shop) == ATTEMPTS_MAX
    assert [len(r.letters) for r in shop.records(ORDER_0) if r.letters] == [1]


async def test_a_poisonous_order_by_the_open_way_is_buried_and_others_are_not(
    shop: Any, touchy: type[Touchy], autojump_clock: MockClock
) -> None:
    touchy.unbearable = frozenset({("OrderCreated", "bad")})
    for order_id in ("o1", "bad", "o2"):
        await shop.publish(order_id, bytes(shop.order(order_id)))
    for order_id in ("o1", "o2"):
        await shop.wait_status(order_id, "confirmed")
    await trio.sleep(30)
    (letter,) = shop.letters()
    assert (letter.type, letter.correlation_id, letter.attempts) == ("OrderCreated", "bad", 3)
    assert letter.payload == bytes(shop.order("bad"))


async def test_a_poisonous_ask_is_answered_when_it_is_buried(
    shop: Any, touchy: type[Touchy], autojump_clock: MockClock
) -> None:
    touchy.unbearable = frozenset({("OrderCreated", "bad"), ("CancelAsked", "o1")})
    assert (await shop.place("bad")).outcome == Outcome.INVALID
    assert (await shop.place("o1", "tok_slow")).outcome == Outcome.DONE
    assert (await shop.cancel("o1")).outcome == Outcome.INVALID
    assert {(at.type, at.correlation_id, at.seq) for at in shop.letters()} == {
        ("OrderCreated", "bad", 0),
        ("CancelAsked", "o1", 0),
    }
    await shop.wait_status("o1", "confirmed")


async def test_three_poisonous_facts_in_one_record_are_buried_one_after_the_other(
    shop: Any, touchy: type[Touchy], autojump_clock: MockClock
) -> None:
    bad = OF_SHARD_0[1:4]
    touchy.unbearable = frozenset(("StockReserved", order_id) for order_id in bad)
    await _open_many(shop, 6)
    for order_id in set(OF_SHARD_0[:6]) - set(bad):
        await shop.wait_status(order_id, "confirmed")
    await trio.sleep(30)
    assert sorted(letter.correlation_id for letter in shop.letters()) == sorted(bad)
    assert _crashes(shop) == 3 * ATTEMPTS_MAX


class Moody(PaymentActor):
    """Cannot bear to hear of some things until its mood is better."""

    unbearable: tuple[type, ...] = ()

    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        if isinstance(heard, self.unbearable):
            raise ValueError(f"cannot bear {type(heard).__name__}")
        return super().react(states, heard, now_ms)


@pytest.mark.parametrize("unbearable", [CallAnswered, Due])
async def test_a_key_whose_deadline_or_answer_was_buried_is_looked_at_again_without_a_restart(
    shop: Any, unbearable: type, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Moody, "unbearable", (unbearable,))
    monkeypatch.setitem(
        ACTORS,
        "payment",
        lambda terms, _: Moody(
            deadline_ms=terms.payment_deadline_ms, settle_ms=terms.payment_settle_ms
        ),
    )
    await shop.process.stop()
    provider = Unreachable(shop.simulator) if unbearable is Due else shop.simulator
    await shop.start(provider=provider)
    await shop.place("o1")
    while not shop.letters():  # noqa: ASYNC110  # The store tells nobody.
        await trio.sleep(1)
    crashes = _crashes(shop)
    (letter,) = shop.letters()
    assert (letter.type, letter.correlation_id) == (unbearable.__name__, "o1")
    monkeypatch.setattr(Moody, "unbearable", ())
    await shop.wait_status("o1", *TERMINAL)
    assert _crashes(shop) == crashes
    assert shop.taken_minor("o1") == (0 if unbearable is Due else 100)


async def test_what_was_about_to_be_buried_when_the_broker_went_is_buried_by_the_next_incarnation(
    shop: Any, touchy: type[Touchy], autojump_clock: MockClock
) -> None:
    """It has had its attempts: it gets no more of them."""
    touchy.unbearable = frozenset({("OrderCreated", "bad")})

    async def lose_one_letter(subject: str, _: bytes) -> None:
        if subject.startswith(LETTERS):
            shop.process.log.before_append = None
            raise BrokerLostError("the letter was lost on its way")

    shop.process.log.before_append = lose_one_letter
    await shop.publish("bad", bytes(shop.order("bad")))
    await trio.sleep(30)
    (letter,) = shop.letters()
    assert letter.attempts == ATTEMPTS_MAX
    assert _crashes(shop) == ATTEMPTS_MAX + 1


# --- deadlines


class Unreachable:
    """A provider that answers only enquiries."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    async def send(self, request: Request) -> Reply:
        if request.method == "POST":
            raise NoReplyError("unreachable")
        reply: Reply = await self._provider.send(request)
        return reply


async def test_a_payment_that_stays_without_an_answer_is_given_up_after_its_deadline(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.process.stop()
    await shop.start(provider=Unreachable(shop.simulator))
    placed_s = trio.current_time()
    await shop.place("o1")
    view = await shop.wait_status("o1", *TERMINAL)
    took_s = trio.current_time() - placed_s
    assert (view["status"], view["reason"]) == ("cancelled", "payment_deadline_passed")
    assert 13.5 * MINUTE_S < took_s < 17 * MINUTE_S
    assert shop.taken_minor("o1") == 0


@pytest.mark.parametrize("between", ["nothing", "a restart", "a jump of the wall clock"])
async def test_a_reservation_expires_at_its_time_and_not_before(
    shop: Any, between: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.process.supervisor.find("actors").stop_child(str(INVENTORY_1))
    placed_s = trio.current_time()
    await shop.place("o1")
    await trio.sleep(20 * MINUTE_S)
    match between:
        case "a restart":
            shop.process.crash(Address("order", shard_of("o1", 2)))
        case "a jump of the wall clock":
            jumped_s = time.time() + 86_400
            monkeypatch.setattr(time, "time", lambda: jumped_s)
            monkeypatch.setattr(time, "time_ns", lambda: int(jumped_s * 1e9))
    await trio.sleep_until(placed_s + 30 * MINUTE_S - 0.5)
    assert b'"pending"' in await shop.process.views.get("o1")
    await trio.sleep(1)
    assert b'"reservation_expired"' in await shop.process.views.get("o1")
    await shop.process.supervisor.find("actors").restart_child(str(INVENTORY_1))
    await trio.sleep(MINUTE_S)
    stock = (await shop.stocks())["a"]
    assert (stock.on_hand, stock.reserved, stock.sold) == (100, 0, 0)


async def test_a_call_whose_answer_waits_to_be_heard_is_not_issued_again(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    charges = 0
    send = Simulator.send

    async def counted(self: Simulator, request: Request) -> Reply:
        nonlocal charges
        charges += request.path == "/charges"
        return await send(self, request)

    async def slow_appends(subject: str, _payload: bytes) -> None:
        if ".payment." in subject:
            await trio.sleep(4)  # The charge takes three seconds, and comes back meanwhile.

    monkeypatch.setattr(Simulator, "send", counted)
    await shop.place("o1", "tok_slow")
    await trio.sleep(0.1)
    shop.process.log.before_append = slow_appends
    await shop.cancel("o1")
    await shop.wait_status("o1", "cancelled")
    assert charges == 1
    assert shop.taken_minor("o1") == 0


@pytest.mark.parametrize("items", [0, 1, 25, 100])
def test_a_fact_takes_no_more_room_in_a_record_than_it_is_weighed_for(items: int) -> None:
    skus = ["S" * 64] * items
    lines = [Line(sku=sku, quantity=2**31 - 1) for sku in skus]
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    facts = [
        StockRefused(order_id="o" * 27, skus=skus, missing_sku="S" * 64),
        OrderOpened(order_id="o" * 27, lines=lines, expires_ms=2**42),
    ]
    for fact in facts:
        record = Record("i/1", 1, Cursor(1), facts=[Envelope(fact, "o" * 27, 2**40, 500, trace)])
        assert len(encode_record(record)) <= module.weigh(fact)
