"""Finished orders whose rows have left memory: asked for again, they are brought back from the broker."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.actor import Answer, Outcome
from runtime import archive, shard
from runtime.archive import Segment
from runtime.memory import MemoryLog
from runtime.recall import Address, keep
from supervisors import ChildCrashed

ORDERS = [f"o{n}" for n in range(60)]
ORDER_SHARD = Address("order", 0)
DONE = Answer(Outcome.DONE, "confirmed")


@pytest.fixture
async def old_shop(
    open_shop: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A shop with one order shard, 60 finished orders, and the rows of few. Ask for `autojump_clock` beside it."""
    monkeypatch.setattr(archive, "SEGMENT_ROWS_MAX", 8)
    monkeypatch.setattr(archive, "LENT_MAX", 2)
    monkeypatch.setattr(shard, "SNAPSHOT_RECORDS", 20)
    async with open_shop() as shop:
        shop.counts = {"order": 1, "inventory": 1, "payment": 1}
        await shop.start()
        await shop.count(a=1_000)
        for order_id in ORDERS:
            await shop.place(order_id)
            await shop.wait_status(order_id, "confirmed")
        yield shop


def segments(shop: Any) -> list[Segment]:
    held: list[Segment] = shop.process.shard("order")._memory.archive._segments
    return held


def away(shop: Any) -> int:
    return sum(one.is_away for one in segments(shop))


def crashes(shop: Any) -> list[ChildCrashed]:
    return [report for report in shop.process.reports if isinstance(report, ChildCrashed)]


async def place_all(shop: Any) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}

    async def place(order_id: str) -> None:
        answers[order_id] = await shop.place(order_id)

    async with trio.open_nursery() as customers:
        for order_id in ORDERS:
            customers.start_soon(place, order_id)
    return answers


async def test_each_finished_order_is_still_known_and_nothing_is_done_twice(
    old_shop: Any, autojump_clock: MockClock
) -> None:
    assert away(old_shop) >= 4
    appended = len(old_shop.store.entries)
    assert await place_all(old_shop) == dict.fromkeys(ORDERS, DONE)
    assert crashes(old_shop) == []
    assert len(old_shop.store.entries) == appended
    assert old_shop.said()["OrderOpened", "o3"] == 1


async def test_few_of_the_rows_that_were_brought_back_are_kept(
    old_shop: Any, autojump_clock: MockClock
) -> None:
    before = away(old_shop)
    await place_all(old_shop)
    assert away(old_shop) == before - 2


async def test_the_same_after_a_new_start(old_shop: Any, autojump_clock: MockClock) -> None:
    oldest = [segment.ref.name for segment in segments(old_shop)][:4]
    await old_shop.process.stop()
    await old_shop.start("i2")
    assert (await old_shop.place(ORDERS[-1])) == DONE
    assert [segment.ref.name for segment in segments(old_shop)][:4] == oldest
    assert away(old_shop) >= 4
    assert await place_all(old_shop) == dict.fromkeys(ORDERS, DONE)


async def test_a_new_order_needs_no_rows(
    old_shop: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def fetch(self: MemoryLog, name: str) -> None:
        raise AssertionError(f"{name} was fetched")

    monkeypatch.setattr(MemoryLog, "get_snapshot", fetch)
    for n in range(100, 130):
        await old_shop.place(f"o{n}")


async def test_what_is_asked_while_rows_are_on_their_way_is_answered_in_turn(
    old_shop: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    get = MemoryLog.get_snapshot

    async def fetch_slowly(self: MemoryLog, name: str) -> bytes | None:
        await trio.sleep(1)
        return await get(self, name)

    monkeypatch.setattr(MemoryLog, "get_snapshot", fetch_slowly)
    started_s = trio.current_time()
    assert (await old_shop.place(ORDERS[0])) == DONE
    assert trio.current_time() - started_s == pytest.approx(1, abs=0.1)
    other = old_shop.order(ORDERS[0], a=2)
    assert (await old_shop.ask("order", ORDERS[0], other)).outcome is Outcome.REUSED
    assert trio.current_time() - started_s == pytest.approx(1, abs=0.1)


async def test_rows_that_are_gone_before_their_time_stop_the_shard_with_the_reason(
    old_shop: Any, autojump_clock: MockClock
) -> None:
    for name in [name for name in old_shop.store.snapshots if name.startswith("order-0/")]:
        del old_shop.store.snapshots[name]
    with trio.move_on_after(5):
        await old_shop.place(ORDERS[0])
    assert "of the archive of order.0 is gone" in str(crashes(old_shop)[0])


async def test_rows_whose_time_is_over_are_forgotten_with_their_segment(
    old_shop: Any, autojump_clock: MockClock
) -> None:
    running = old_shop.process
    oldest, before = segments(old_shop)[0], len(segments(old_shop))
    running.clock.see(oldest.ref.expires_ms)
    for name in [name for name in old_shop.store.snapshots if name.startswith("order-0/")]:
        del old_shop.store.snapshots[name]
    assert (await old_shop.place(ORDERS[0])) == Answer(Outcome.DONE, "pending")
    assert len(segments(old_shop)) < before
    assert crashes(old_shop) == []


async def test_a_broker_that_goes_away_meanwhile_costs_an_attempt(
    old_shop: Any, autojump_clock: MockClock
) -> None:
    log = old_shop.process.log
    async with trio.open_nursery() as customers:

        async def lose() -> None:
            log.disconnect()
            await trio.sleep(3)
            log.reconnect()

        customers.start_soon(lose)
        assert (await old_shop.place(ORDERS[0])) == DONE


class Watched(MemoryLog):
    """Remembers which snapshots were put, in order."""

    async def put_snapshot(self, name: str, data: bytes) -> None:
        await super().put_snapshot(name, data)
        self.put = [*getattr(self, "put", ()), name]


async def test_rows_that_are_away_are_stored_again_when_half_of_their_time_is_over(
    old_shop: Any, autojump_clock: MockClock
) -> None:
    memory, now_ms = old_shop.process.shard("order")._memory, old_shop.process.clock.now_ms()
    before = dict(old_shop.store.snapshots)
    memory.archive.renew(now_ms + old_shop.retention_ms, old_shop.retention_ms)
    taken = memory.take_snapshot(now_ms, old_shop.retention_ms)
    assert any(segment.is_away for segment in taken.new_segments)
    log = Watched(old_shop.store)
    await keep(log, ORDER_SHARD, taken)
    names = [ORDER_SHARD.segment(segment.ref.name) for segment in segments(old_shop)]
    assert log.put == [*names, "order-0"]
    assert all(old_shop.store.snapshots[name] == before.get(name) for name in names[:-3])
