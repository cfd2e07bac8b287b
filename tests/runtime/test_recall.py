"""Recalling a shard: its snapshot and its records, or its records alone."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import ACTORS, Place, Terms
from actors.actor import Outcome, Remains
from actors.order_state import CODES, OrderState, OrderStatus
from actors.payment import Doing, PaymentState
from messages.codec import wire_class
from messages.record import Change, Cursor, Record, RecordError, encode_record, frame
from runtime import archive
from runtime.log import BrokerLostError, DamagedError
from runtime.memory import MemoryLog
from runtime.recall import CLOCK_MARGIN_MS, Address, Memory, keep, recall

PAYMENT = Address("payment", 0)
ORDER = Address("order", 0)
RETENTION_MS = 7 * 86_400_000


def payment(order_id: str) -> PaymentState:
    return PaymentState(order_id, 100, "GBP", "tok_ok", Doing.CHARGE, deadline_ms=9)


def memory() -> Memory:
    return Memory(ACTORS["payment"](Terms(), Place(0, 1)))


async def recalled(log: MemoryLog) -> Memory:
    return await recall(log, PAYMENT, memory().actor)


async def append(log: MemoryLog, turn: int, cursor: Cursor, **states: PaymentState | None) -> int:
    """One record of the shard."""
    known = memory()
    changes = []
    for key, state in states.items():
        known.put(key, state, f"trace-{key}", 0)
        changes.append(
            Change(key, None, "") if state is None else known.encode_changes(iter([key]))[0]
        )
    return await log.append(PAYMENT.journal, encode_record(Record("i1/1", turn, cursor, changes)))


async def test_nothing_is_known_of_a_shard_that_never_ran() -> None:
    memory = await recalled(MemoryLog())
    assert (memory.live, memory.seq, memory.owner, memory.cursor) == ({}, 0, "", Cursor())


async def test_the_newest_state_of_each_key_counts_and_what_is_forgotten_is_gone() -> None:
    log = MemoryLog()
    await append(log, 0, Cursor(1), a=payment("a"), b=payment("b"))
    await log.append("ORDER.journal.order.0", b"not ours")
    await append(log, 1, Cursor(4, 2), a=None, c=payment("c"))
    memory = await recalled(log)
    assert memory.live == {"b": payment("b"), "c": payment("c")}
    assert memory.traces == {"b": "trace-b", "c": "trace-c"}
    assert (memory.seq, memory.owner, memory.cursor) == (3, "i1/1", Cursor(4, 2))
    assert memory.unsaved == 2


async def test_a_snapshot_spares_the_records_before_it() -> None:
    log = MemoryLog()
    await append(log, 0, Cursor(1), a=payment("a"))
    await keep(log, PAYMENT, (await recalled(log)).take_snapshot(0, RETENTION_MS))
    await append(log, 1, Cursor(3), b=payment("b"))
    memory = await recalled(log)
    assert (set(memory.live), memory.unsaved, set(memory.recent)) == ({"a", "b"}, 1, {"b"})
    assert (memory.seq, memory.cursor) == (2, Cursor(3))


async def test_a_snapshot_as_new_as_the_journal_is_enough() -> None:
    log = MemoryLog()
    await append(log, 0, Cursor(1), a=payment("a"))
    await keep(log, PAYMENT, (await recalled(log)).take_snapshot(0, RETENTION_MS))
    memory = await recalled(log)
    assert (set(memory.live), memory.recent, memory.unsaved) == ({"a"}, {}, 0)


async def test_a_journal_that_retention_has_emptied_is_continued_from_its_snapshot() -> None:
    log = MemoryLog()
    await append(log, 0, Cursor(1), a=payment("a"))
    kept = (await recalled(log)).take_snapshot(0, RETENTION_MS)
    log = MemoryLog()
    await keep(log, PAYMENT, kept)
    memory = await recalled(log)
    assert set(memory.live) == {"a"}
    await log.append(PAYMENT.journal, b"the next", expect=memory.seq)


async def test_damage_is_not_passed_over() -> None:
    log = MemoryLog()
    await append(log, 0, Cursor(1), a=payment("a"))
    stored = log.store.entries[0].payload
    damaged = MemoryLog()
    await damaged.append(PAYMENT.journal, stored[:-1] + b"\x00")
    with pytest.raises(RecordError, match="checksum"):
        await recalled(damaged)
    kept = (await recalled(log)).take_snapshot(0, RETENTION_MS)
    await log.put_snapshot(PAYMENT.snapshot, kept.snapshot[:-1])
    with pytest.raises(RecordError, match="checksum"):
        await recalled(log)


async def test_a_broker_lost_meanwhile_is_said_so() -> None:
    log = MemoryLog()
    log.disconnect()
    with pytest.raises(BrokerLostError):
        await recalled(log)


# --- the archive, in segments ---


class History:
    """An order shard's memory over many snapshots, and the log that keeps them."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.memory = Memory(ACTORS["order"](Terms(), Place(0, 1)))
        self.bytes_kept = 0

    def finish(self, numbers: range, at_ms: int = 0) -> None:
        for n in numbers:
            status = OrderStatus.CONFIRMED
            state = OrderState(f"o{n}", "c1", "GBP", 100, (), "tok_ok", n, 0, status, ())
            self.memory.put(f"o{n}", state, "", at_ms)

    async def keep(self, now_ms: int = 0) -> int:
        """Take a snapshot and keep it; returns how many bytes that wrote."""
        taken = self.memory.take_snapshot(now_ms, RETENTION_MS)
        await keep(self.log, ORDER, taken)
        return len(taken.snapshot) + sum(len(one.packed) for one in taken.new_segments)

    async def recalled(self, *, with_archive: bool = True) -> Memory:
        return await recall(self.log, ORDER, self.memory.actor, with_archive=with_archive)

    async def let_be_ms(self, now_ms: int) -> None:
        """Let the broker's clock say so, and the shard have a record of that time."""
        self.log.store._now_ms = lambda: now_ms
        await self.log.append(ORDER.journal, encode_record(Record("i1/1", 0, Cursor())))

    @property
    def segments(self) -> list[str]:
        return [name for name in self.log.store.snapshots if "/" in name]


async def test_a_snapshot_costs_what_has_finished_since_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "SEGMENT_ROWS_MAX", 10_000)
    history = History()
    history.finish(range(9_900))
    assert await history.keep() > 32 * 9_900
    history.finish(range(9_900, 10_000))
    assert await history.keep() < 32 * 100 + 6_000  # Rows, and an index of 4 KB.
    assert await history.keep() < 500
    memory = await history.recalled()
    assert len(memory.archive) == 10_000
    assert [memory.get(f"o{n}") for n in (0, 9_899, 9_999)] == [
        history.memory.get(f"o{n}") for n in (0, 9_899, 9_999)
    ]


async def test_what_a_snapshot_names_is_there_before_it_and_stays_there() -> None:
    history = History()
    history.finish(range(100))
    await history.keep()
    old = dict(history.log.store.snapshots)
    history.finish(range(100, 300))
    taken = history.memory.take_snapshot(0, RETENTION_MS)
    history.log.disconnect()
    with pytest.raises(BrokerLostError):
        await keep(history.log, ORDER, taken)
    history.log.reconnect()
    assert history.log.store.snapshots == old
    await keep(history.log, ORDER, taken)  # Merged with the first segment, which a zombie may name.
    assert list(history.log.store.snapshots)[-1] == ORDER.segment(taken.new_segments[0].ref.name)
    history.log.store.snapshots[ORDER.snapshot] = old[ORDER.snapshot]
    assert len((await history.recalled()).archive) == 100


async def test_a_segment_whose_storing_failed_is_stored_with_the_next_snapshot() -> None:
    history = History()
    history.finish(range(100))
    history.memory.take_snapshot(0, RETENTION_MS)
    await history.keep()
    assert len((await history.recalled()).archive) == 100


async def test_a_segment_that_is_gone_before_its_time_is_damage_and_afterwards_is_not() -> None:
    history = History()
    history.finish(range(100), at_ms=1_000)
    await history.keep()
    (name,) = history.segments
    history.log.store.snapshots[name] += b"more"
    with pytest.raises(DamagedError, match="damaged"):
        await history.recalled()
    assert len((await history.recalled(with_archive=False)).archive) == 0
    del history.log.store.snapshots[name]
    with pytest.raises(DamagedError, match="gone"):
        await history.recalled()
    await history.let_be_ms(1_000 + RETENTION_MS)
    assert len((await history.recalled()).archive) == 0


class Chipped(MemoryLog):
    """RETENTION has taken some of what each segment is stored in, and not yet what is known about it."""

    fetched = 0

    async def get_snapshot(self, name: str) -> bytes | None:
        if "/" not in name:
            return await super().get_snapshot(name)
        self.fetched += 1
        raise DamagedError(f"{name} is damaged")


async def test_a_segment_that_is_due_to_go_within_the_hour_may_be_gone_in_part_or_wholly() -> None:
    history = History()
    history.finish(range(100), at_ms=CLOCK_MARGIN_MS)
    await history.keep()
    history.log = chipped = Chipped(history.log.store)
    await history.let_be_ms(RETENTION_MS - 1)
    with pytest.raises(DamagedError, match="damaged"):
        await history.recalled()
    await history.let_be_ms(RETENTION_MS)
    assert len((await history.recalled()).archive) == 0
    history.log = MemoryLog(history.log.store)
    assert len((await history.recalled()).archive) == 100, "it is not passed over while it is there"
    del history.log.store.snapshots[history.segments[0]]
    assert len((await history.recalled()).archive) == 0
    assert chipped.fetched == 2


async def test_a_segment_whose_time_is_over_is_not_asked_for() -> None:
    history = History()
    history.finish(range(100))
    await history.keep()
    history.log = chipped = Chipped(history.log.store)
    await history.let_be_ms(RETENTION_MS)
    assert len((await history.recalled()).archive) == 0
    assert chipped.fetched == 0


async def test_a_segment_is_stored_anew_each_half_of_the_retention_also_by_the_next_owner() -> None:
    history = History()
    history.finish(range(100), at_ms=RETENTION_MS)
    await history.keep()
    (segment,) = history.segments
    written: list[int] = []
    for now_ms in range(0, RETENTION_MS + 1, RETENTION_MS // 8):
        history.memory = await history.recalled()
        history.memory.archive.renew(now_ms, RETENTION_MS)
        history.log.store.snapshots.pop(segment)
        await history.keep(now_ms)
        written += [now_ms] if segment in history.segments else []
        history.log.store.snapshots[segment] = next(iter(history.memory.archive._segments)).packed
    assert written == [RETENTION_MS * 5 // 8]


async def test_a_snapshot_of_the_first_format_is_read_and_its_archive_known() -> None:
    history = History()
    history.finish(range(100))
    rows = b"".join(history.memory.archive._young)
    first = wire_class("Snapshot")(seq=0, archive=rows)
    await history.log.put_snapshot(ORDER.snapshot, frame(first.SerializeToString()))
    history.memory = await history.recalled()
    history.finish(range(100, 120))
    await history.keep()
    memory = await history.recalled()
    assert len(memory.archive) == 120
    confirmed = CODES.index(OrderStatus.CONFIRMED)
    assert [memory.get(key) for key in ("o7", "o107")] == [
        Remains(confirmed, 7),
        Remains(confirmed, 107),
    ]


async def test_finished_orders_are_known_from_snapshot_and_records_alike(
    shop: Any, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as customers:
        for number in range(40):
            customers.start_soon(shop.place, f"o{number}")
    await shop.place("open", "tok_slow")
    await shop.wait_status("o39", "confirmed")
    await shop.process.stop()
    for actor, count in shop.counts.items():
        for number in range(count):
            with_snapshot = await shop.recalled(actor, number)
            alone = await shop.recalled(actor, number, snapshots=False)
            assert (with_snapshot.live, with_snapshot.cursor) == (alone.live, alone.cursor)
            assert (with_snapshot.seq, with_snapshot.owner) == (alone.seq, alone.owner)
            assert with_snapshot.unsaved == 0 < alone.unsaved
            assert len(with_snapshot.archive) == len(alone.archive)
    order_0 = await shop.recalled("order", 0)
    order_1 = await shop.recalled("order", 1)
    assert len(order_0.archive) + len(order_1.archive) == 40
    for number in range(40):
        found = [m.get(f"o{number}") for m in (order_0, order_1)]
        assert [type(f) for f in found if f] == [Remains]


async def test_the_answer_about_a_finished_order_stays_the_same_over_snapshots_and_restarts(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.place("o1", a=2)
    await shop.wait_status("o1", "confirmed")
    for loss in ("stop", "kill"):
        if loss == "stop":
            await shop.process.stop()
        else:
            shop.process.kill()
        await shop.start()
        again = await shop.place("o1", a=2)
        assert (again.outcome, again.status) == (Outcome.DONE, "confirmed")
        other = await shop.place("o1", a=3)
        assert other.outcome == Outcome.REUSED
        late = await shop.cancel("o1")
        assert (late.outcome, late.status) == (Outcome.TOO_LATE, "confirmed")
    assert shop.taken_minor("o1") == 200
