"""The tail: every shard hears what is addressed to it, in order, once, wherever it joins."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
from betterproto import Message
from trio.testing import MockClock, wait_all_tasks_blocked

from messages.codec import FOREIGN_BYTES_MAX
from messages.generated.orders.v1 import OrderCancelled, OrderCreated, OrderItem, PaymentTaken
from messages.record import Cursor, Envelope, Letter, Record, encode_record
from messages.routing import KeysOf, Routes, by_order, by_skus
from runtime import mailbox as mailbox_module
from runtime import memory as memory_module
from runtime import tail as tail_module
from runtime.addressing import read_intake
from runtime.clock import LogClock
from runtime.mailbox import Delivery, Mailbox, Wake
from runtime.memory import MemoryLog
from runtime.recall import INTAKE, Address
from runtime.tail import Tail

BEGINNING = Cursor()
ORDER, INVENTORY = Address("order", 0), Address("inventory", 0)
HEARS: Mapping[str, Mapping[type[Message], KeysOf]] = {
    "order": {PaymentTaken: by_order, OrderCreated: by_order},
    "inventory": {OrderCancelled: by_skus},
}


class Listener:
    """A shard that only listens, and moves its cursor as shards do."""

    def __init__(self, tail: Tail, address: Address, cursor: Cursor = BEGINNING) -> None:
        self.mailbox, self.cursor = Mailbox(), cursor
        self.heard: list[str] = []
        tail.join(address, self.mailbox, cursor)

    async def listen(self, most: int = 1_000) -> list[str]:
        """What has arrived since, in short."""
        await wait_all_tasks_blocked()
        if not len(self.mailbox):
            return []
        for item in await self.mailbox.take(most):
            assert isinstance(item, Delivery)
            self.cursor = item.after
            content = item.content
            assert not isinstance(content, Wake)
            self.heard.append(
                f"? {content.reason}" if isinstance(content, Letter) else content.correlation_id
            )
        return self.heard


class Writer:
    """Appends records as a shard elsewhere does."""

    def __init__(self, log: MemoryLog) -> None:
        self.log, self.turn = log, 0

    async def write(self, *ids: str, kind: Callable[..., Any] = PaymentTaken) -> int:
        facts = [Envelope(kind(order_id=each), each) for each in ids]
        self.turn += 1
        record = Record("elsewhere/1", self.turn, Cursor(), (), facts)
        return await self.log.append("ORDER.journal.payment.0", encode_record(record))


def release(order_id: str) -> OrderCancelled:
    return OrderCancelled(order_id=order_id, skus=["a"])


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def writer(log: MemoryLog) -> Writer:
    return Writer(log)


@pytest.fixture
async def tail(log: MemoryLog, nursery: trio.Nursery) -> Tail:
    tail = Tail(log, Routes(HEARS, {"order": 1, "inventory": 1}), LogClock())
    await nursery.start(tail.run)
    return tail


async def test_each_shard_hears_what_is_addressed_to_it_in_order(
    tail: Tail, writer: Writer, autojump_clock: MockClock
) -> None:
    order, inventory = Listener(tail, ORDER), Listener(tail, INVENTORY)
    await writer.write("o1", "o2")
    await writer.write("o3", kind=release)
    await writer.write("o4")
    assert await order.listen() == ["o1", "o2", "o4"]
    assert await inventory.listen() == ["o3"]
    assert order.mailbox.read_seq == inventory.mailbox.read_seq == tail.position == 3


@pytest.mark.parametrize(
    ("cursor", "hears"),
    [
        (Cursor(0, 0), ["o1", "o2", "o3", "o4"]),
        (Cursor(0, 1), ["o2", "o3", "o4"]),
        (Cursor(1, 0), ["o3", "o4"]),
        (Cursor(1, 1), ["o4"]),
        (Cursor(2, 0), []),
    ],
)
async def test_a_cursor_is_heard_on_from_exactly(
    tail: Tail, writer: Writer, cursor: Cursor, hears: list[str], autojump_clock: MockClock
) -> None:
    await writer.write("o1", "o2")
    await writer.write("o3", "o4")
    first = Listener(tail, ORDER, cursor)
    assert await first.listen() == hears
    late = Listener(tail, ORDER, cursor)  # From the window.
    assert await late.listen() == hears
    await writer.write("o5")
    assert await late.listen() == [*hears, "o5"]
    assert late.cursor == Cursor(3)


async def test_facts_for_others_in_a_record_do_not_count_for_the_cursor(
    tail: Tail, log: MemoryLog, autojump_clock: MockClock
) -> None:
    facts = [
        Envelope(fact, fact.order_id)
        for fact in (release("x"), PaymentTaken("o1"), release("y"), PaymentTaken("o2"))
    ]
    await log.append("ORDER.journal.x.0", encode_record(Record("a/1", 1, Cursor(), (), facts)))
    whole = Listener(tail, ORDER)
    await whole.listen(most=1)
    assert (whole.heard, whole.cursor) == (["o1"], Cursor(0, 1))
    assert await Listener(tail, ORDER, whole.cursor).listen() == ["o2"]


async def test_a_late_joiner_is_served_from_the_window_without_reading_again(
    tail: Tail, writer: Writer, autojump_clock: MockClock
) -> None:
    first = Listener(tail, ORDER)
    for number in range(5):
        await writer.write(f"o{number}")
    await first.listen()
    late = Mailbox()
    tail.join(ORDER, late, Cursor(2))
    assert len(late) == 3  # At once: nobody has waited yet.
    assert [item.seq for item in await late.take(9) if isinstance(item, Delivery)] == [3, 4, 5]
    assert late.read_seq == 5


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "WINDOW_FACTS", 2)


@pytest.mark.usefixtures("narrow")
async def test_for_a_joiner_from_before_the_window_the_tail_goes_back_and_others_hear_nothing_twice(
    tail: Tail, writer: Writer, autojump_clock: MockClock
) -> None:
    order = Listener(tail, ORDER)
    for number in range(6):
        await writer.write(f"o{number}", kind=PaymentTaken if number % 2 else release)
    assert await order.listen() == ["o1", "o3", "o5"]
    inventory = Listener(tail, INVENTORY)
    assert await inventory.listen() == ["o0", "o2", "o4"]
    await writer.write("o6", kind=release)
    await writer.write("o7")
    assert await inventory.listen() == ["o0", "o2", "o4", "o6"]
    assert await order.listen() == ["o1", "o3", "o5", "o7"]


@pytest.mark.usefixtures("narrow")
async def test_what_had_already_arrived_when_a_joiner_came_does_not_go_past_it(
    tail: Tail, writer: Writer, autojump_clock: MockClock
) -> None:
    first = Listener(tail, ORDER)
    for number in range(6):
        await writer.write(f"o{number}")
    await first.listen()
    await writer.write("o6")  # The tail has it, but has not yet turned to it.
    late = Listener(tail, ORDER)
    await writer.write("o7")
    assert await late.listen() == [f"o{number}" for number in range(8)]


async def test_the_first_to_join_decides_where_reading_begins_and_the_next_may_be_older(
    tail: Tail, writer: Writer, autojump_clock: MockClock
) -> None:
    for number in range(6):
        await writer.write(f"o{number}", kind=PaymentTaken if number % 2 else release)
    order = Listener(tail, ORDER, Cursor(4))
    inventory = Listener(tail, INVENTORY, Cursor(1))
    assert await order.listen() == ["o5"]
    assert await inventory.listen() == ["o2", "o4"]


async def test_who_has_left_is_told_nothing(
    tail: Tail, writer: Writer, autojump_clock: MockClock
) -> None:
    order, inventory = Listener(tail, ORDER), Listener(tail, INVENTORY)
    await writer.write("o1")
    await order.listen()
    tail.leave(ORDER)
    await writer.write("o2")
    await inventory.listen()
    assert await order.listen() == []
    assert tail.position == 2


async def test_a_full_mailbox_holds_the_tail_until_there_is_room(
    tail: Tail, writer: Writer, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox_module, "ROOM", 5)
    monkeypatch.setattr(memory_module, "TAKE_MAX", 3)
    order = Listener(tail, ORDER)
    for number in range(30):
        await writer.write(f"o{number}")
    await wait_all_tasks_blocked()
    assert 5 <= tail.position <= 7
    while len(order.heard) < 30:
        assert len(order.mailbox) <= 7
        await order.listen(most=2)
    assert order.heard == [f"o{number}" for number in range(30)]


@pytest.mark.usefixtures("narrow")
async def test_a_joiner_is_not_kept_waiting_by_a_full_mailbox_of_another_that_closes(
    tail: Tail, writer: Writer, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox_module, "ROOM", 1)
    monkeypatch.setattr(memory_module, "TAKE_MAX", 1)
    order = Listener(tail, ORDER)
    for number in range(5):
        await writer.write(f"o{number}", kind=PaymentTaken if number % 2 else release)
    await wait_all_tasks_blocked()
    assert tail.position < 5
    tail.leave(ORDER)
    order.mailbox.close()
    inventory = Listener(tail, INVENTORY)
    for _ in range(3):
        await inventory.listen()
    assert inventory.heard == ["o0", "o2", "o4"]


async def test_what_is_said_here_is_not_decoded_again(
    tail: Tail, log: MemoryLog, autojump_clock: MockClock
) -> None:
    order = Listener(tail, ORDER)
    said = Envelope(PaymentTaken("o1"), "o1")
    record = encode_record(Record("here/1", 1, Cursor(), (), [said]))
    tail.say(record, [said])
    await log.append("ORDER.journal.payment.0", record)
    await wait_all_tasks_blocked()
    (delivery,) = await order.mailbox.take(9)
    assert isinstance(delivery, Delivery)
    assert delivery.content is said
    assert tail._said == {}


async def test_what_was_said_but_not_stored_is_not_heard_in_place_of_another_record(
    tail: Tail, log: MemoryLog, autojump_clock: MockClock
) -> None:
    order = Listener(tail, ORDER)
    lost, stored = (
        encode_record(Record("here/1", 1, Cursor(), (), [Envelope(PaymentTaken(each), each)]))
        for each in ("lost", "stored")
    )
    tail.say(lost, [Envelope(PaymentTaken("lost"), "lost")])
    await log.append("ORDER.journal.payment.0", stored)
    assert await order.listen() == ["stored"]


def test_what_crashed_shards_have_said_is_bounded() -> None:
    tail = Tail(MemoryLog(), Routes(HEARS, {"order": 1, "inventory": 1}), LogClock())
    for number in range(2 * tail_module.SAID_MAX):
        tail.say(b"%d" % number, [])
    assert len(tail._said) == tail_module.SAID_MAX


async def test_an_unreadable_record_is_set_aside_by_one_shard_and_what_follows_is_heard(
    tail: Tail, log: MemoryLog, writer: Writer, autojump_clock: MockClock
) -> None:
    order, inventory = Listener(tail, ORDER), Listener(tail, INVENTORY)
    await log.append("ORDER.journal.payment.0", b"no record")
    await writer.write("o1")
    assert await order.listen() == ["? it does not start like a record", "o1"]
    assert await inventory.listen() == []
    assert order.cursor == Cursor(2)


async def test_what_stands_on_no_subject_of_ours_is_set_aside_and_dead_letters_are_heard_by_nobody(
    tail: Tail, log: MemoryLog, autojump_clock: MockClock
) -> None:
    order = Listener(tail, ORDER)
    await log.append("ORDER.created", b"without an id")
    await log.append("ORDER.dead.order.0", b"a letter")
    await log.append("ORDER.craeted.o1", b"misspelt")
    heard = await order.listen()
    assert [each[:29] for each in heard] == ["? nobody reads this subject; "] * 2
    assert tail.position == 3


async def test_the_clock_learns_from_every_entry(
    log: MemoryLog, writer: Writer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    clock = LogClock()
    tail = Tail(log, Routes(HEARS, {"order": 1, "inventory": 1}), clock)
    await nursery.start(tail.run)
    order = Listener(tail, ORDER)
    await writer.write("o1")
    await order.listen()
    assert clock.now_ms() == memory_module.EPOCH_MS


# --- the open way in


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def created(order_id: str) -> OrderCreated:
    item = OrderItem(sku="a", quantity=1, unit_price_minor=100)
    return OrderCreated(order_id=order_id, items=[item], currency="GBP", total_minor=100)


async def test_an_order_by_the_open_way_is_heard_by_the_shard_of_its_subject(
    tail: Tail, log: MemoryLog, autojump_clock: MockClock
) -> None:
    order = Listener(tail, ORDER)
    await log.append(
        f"{INTAKE}.o1",
        bytes(created("o1")),
        headers={"traceparent": TRACE},
    )
    await wait_all_tasks_blocked()
    (delivery,) = await order.mailbox.take(9)
    assert isinstance(delivery, Delivery)
    assert delivery.content == Envelope(created("o1"), "o1", traceparent=TRACE)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "empty"),
        (b'{"order_id": "o1"}', "not a OrderCreated"),
        (bytes(created("o1"))[:-1], "not a OrderCreated"),
        (bytes(created("o2")), "names order o1, the body 'o2'"),
        (bytes(FOREIGN_BYTES_MAX + 1), "bytes"),
    ],
)
async def test_what_is_no_order_is_heard_as_a_letter_that_says_why(
    tail: Tail, log: MemoryLog, payload: bytes, why: str, autojump_clock: MockClock
) -> None:
    order = Listener(tail, ORDER)
    await log.append(f"{INTAKE}.o1", payload)
    (heard,) = await order.listen()
    assert why in heard


async def test_a_letter_about_a_giant_holds_no_more_than_its_beginning() -> None:
    log = MemoryLog()
    await log.append(f"{INTAKE}.o1", bytes(log.payload_bytes_max))
    letter = read_intake(log.store.entries[0], "o1")
    assert isinstance(letter, Letter)
    assert len(letter.payload) == FOREIGN_BYTES_MAX
    assert letter.seq == 1  # Where the whole of it stands.
