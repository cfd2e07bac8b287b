"""Snapshots of a shard, its renewal, and what a recovery makes good."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from messages.routing import shard_of
from runtime import shard as module
from runtime.log import BrokerLostError
from runtime.mailbox import Ask, AskFailedError
from runtime.memory import MemoryLog, MemoryStore
from runtime.recall import Address
from supervisors import ShutdownError

ORDER_0 = Address("order", 0)


def snapshots_in(store: MemoryStore) -> set[str]:
    """Those that are there, less the segments of archives that they name."""
    return {name for name in store.snapshots if "/" not in name}


OF_SHARD_0 = [key for n in range(200) if shard_of(key := f"o{n}", 2) == 0]


async def test_a_snapshot_holds_nothing_that_may_yet_not_be_stored(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_RECORDS", 1)
    asked = [Ask(shop.order(order_id)) for order_id in OF_SHARD_0[:2]]
    mailbox = shop.process.shard("order").mailbox
    appends = 0

    async def fail_the_second(subject: str, _payload: bytes) -> None:
        nonlocal appends
        if subject == ORDER_0.journal:
            appends += 1
            if appends == 1:
                mailbox.ask(asked[1])  # So it is decided on before the snapshot is stored.
            if appends == 2:
                await trio.sleep(5)
                raise BrokerLostError("lost by a test")

    shop.process.log.before_append = fail_the_second
    mailbox.ask(asked[0])
    await asked[0].wait_answered()
    with pytest.raises(AskFailedError):
        await asked[1].wait_answered()
    assert "order-0" in shop.store.snapshots
    await shop.place(OF_SHARD_0[1])
    await shop.wait_status(OF_SHARD_0[1], "confirmed")


async def test_a_start_that_had_much_to_read_leaves_a_snapshot_so_that_kill_after_kill_costs_no_more(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_BACK_RECORDS", 20)
    for order_id in OF_SHARD_0[:10]:
        await shop.place(order_id)
        await shop.wait_status(order_id, "confirmed")
    assert "order-0" not in shop.store.snapshots
    shop.process.kill()
    await shop.start("i2")
    await shop.wait_running()
    assert "order-0" not in shop.store.snapshots
    await shop.place(OF_SHARD_0[10])
    await shop.wait_status(OF_SHARD_0[10], "confirmed")
    assert "order-0" in shop.store.snapshots
    assert (await shop.recalled("order", 0)).unsaved < 10


async def test_a_busy_shard_keeps_a_snapshot_every_so_many_records_and_no_more_often(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_RECORDS", 10)
    kept: list[str] = []
    put = MemoryLog.put_snapshot

    class Counting(MemoryLog):
        async def put_snapshot(self, name: str, data: bytes) -> None:
            kept.append(name)
            await put(self, name, data)

    await shop.process.stop()
    await shop.start(log=Counting(shop.store))
    await shop.wait_running()
    before = len(shop.records(ORDER_0))
    for order_id in OF_SHARD_0[:20]:
        await shop.place(order_id)
        await shop.wait_status(order_id, "confirmed")
        await shop.place(order_id)  # No record comes of that, and no snapshot either.
    records = len(shop.records(ORDER_0)) - before
    assert kept.count("order-0") in {records // 10, records // 10 + 1}
    memory = await shop.recalled("order", 0)
    assert memory.unsaved < 12


async def test_large_records_bring_the_next_snapshot_sooner(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_RECORDS", 10)
    asks = [Ask(shop.order(order_id)) for order_id in OF_SHARD_0[:80]]
    for ask in asks:
        shop.process.shard("order").mailbox.ask(ask)
    for ask in asks:
        await ask.wait_answered()
    await shop.wait_status(OF_SHARD_0[0], "confirmed")
    assert len(shop.records(ORDER_0)) < 10
    assert "order-0" in shop.store.snapshots


async def test_an_idle_shard_renews_its_record_and_snapshot_before_they_expire(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.process.stop()
    shop.retention_ms = 3_600_000
    await shop.start()
    await shop.place("o1")
    for _ in range(5):
        shop.store.snapshots.clear()
        await trio.sleep(3600 * 0.3)
        assert snapshots_in(shop.store) == {
            each.snapshot for each in shop.process.shards.addresses()
        }
        for address in shop.process.shards.addresses():
            newest = shop.store.last(address.journal)
            assert shop.process.clock.now_ms() - newest.time_ms < shop.retention_ms * 0.3
    assert shop.said()["OrderOpened", "o1"] == 1


class Forgetful(MemoryLog):
    """Drops what was stored RETENTION ago by the trio clock, which nobody sets."""

    def __init__(self, store: MemoryStore, retention_s: float, stored_s: dict[str, float]) -> None:
        super().__init__(store)
        self._retention_s, self._stored_s = retention_s, stored_s

    async def put_snapshot(self, name: str, data: bytes) -> None:
        await super().put_snapshot(name, data)
        self._stored_s[name] = trio.current_time()

    async def get_snapshot(self, name: str) -> bytes | None:
        found = await super().get_snapshot(name)
        is_there = trio.current_time() < self._stored_s.get(name, 0) + self._retention_s
        return found if is_there else None


async def test_a_finished_order_is_known_as_long_when_the_brokers_clock_was_ahead_as_it_finished(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.process.stop()
    shop.store.snapshots.clear()
    shop.retention_ms = 36_000_000
    retention_s, now_ms = shop.retention_ms / 1000, shop.store._now_ms
    shop.store._now_ms = lambda: now_ms() + 2 * 3_600_000
    stored_s: dict[str, float] = {}
    lives = (("o1", 0.0), ("o2", 90.0), ("o3", retention_s + 600), ("o4", 0.0))
    for order_id, lives_s in lives:  # Only the third reads nothing that is ahead of its time.
        await shop.start(log=Forgetful(shop.store, retention_s, stored_s))
        await shop.place(order_id)
        await shop.wait_status(order_id, "confirmed")
        await trio.sleep(lives_s)
        await shop.process.stop()
        shop.store._now_ms = now_ms
    await shop.start(log=Forgetful(shop.store, retention_s, stored_s))
    assert (await shop.place("o1")).status == "confirmed"


async def test_a_finished_order_is_known_for_the_retention_and_then_forgotten(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.process.stop()
    shop.retention_ms = 3_600_000
    await shop.start()
    await shop.place("o1")
    await shop.wait_status("o1", "confirmed")
    await trio.sleep(3600 * 0.9)
    assert (await shop.place("o1")).status == "confirmed"
    await trio.sleep(3600 * 0.5)
    running = [shop.process.shard("order", number)._memory for number in (0, 1)]
    assert [len(memory.archive) for memory in running] == [0, 0]


async def test_a_stop_without_a_broker_does_not_wait_for_a_last_snapshot(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.place("o1")
    await shop.wait_status("o1", "confirmed")
    await trio.sleep(1)
    shop.process.log.disconnect()
    with trio.fail_after(30):
        await shop.process.stop()
    faults = [r.path for r in shop.process.reports if isinstance(r, ShutdownError)]
    assert [path for path in faults if path.startswith("actors/")] == []


async def test_a_view_that_a_crash_left_unwritten_is_written_by_the_recovery(
    shop: Any, autojump_clock: MockClock
) -> None:
    class Mute(MemoryLog):
        async def put_views(self, views: Any) -> None:
            await trio.sleep_forever()

    await shop.process.stop()
    await shop.start(log=Mute(shop.store))
    await shop.place("o1")
    await trio.sleep(5)
    assert shop.store.views == {}
    assert b'"confirmed"' in await shop.process.views.get("o1")
    shop.process.kill()
    await shop.start()
    await shop.wait_status("o1", "confirmed")


async def test_a_shard_to_which_nothing_is_addressed_does_not_fall_behind_the_log(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CURSOR_LAG_MAX", 20)
    await shop.process.stop()
    await shop.start()
    for number in range(100):
        await shop.place(f"o{number}", b=1_000)  # Out of stock: payment hears of none of them.
        await wait_all_tasks_blocked()
    await trio.sleep(1)
    (newest,) = shop.records(Address("payment", 0))[-1:]
    assert newest.cursor.seq > len(shop.store.entries) - 50
    assert len(shop.records(Address("payment", 0))) < 30


async def test_shards_that_never_live_for_long_renew_their_snapshots_all_the_same(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.place("o1")
    await shop.wait_status("o1", "confirmed")
    for _ in range(3):
        shop.store.snapshots.clear()
        shop.process.kill()
        await shop.start()
        await trio.sleep(90)  # Far less than a quarter of the retention.
        assert snapshots_in(shop.store) == {
            each.snapshot for each in shop.process.shards.addresses()
        }
