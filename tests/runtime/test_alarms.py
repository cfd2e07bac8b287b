"""A shard's alarm clock, in virtual time."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.actor import Due
from runtime.alarms import STALE_MIN, Alarms
from runtime.clock import LogClock

Rings = list[tuple[str, int]]


class Bedside:
    """Alarms that run, and when they rang."""

    def __init__(self) -> None:
        self.clock = LogClock()
        self.clock.see(0)
        self.alarms = Alarms(self.clock)
        self.rings: Rings = []

    def ring(self, due: Due) -> None:
        self.rings.append((due.key, self.clock.now_ms()))


@pytest.fixture
async def bedside(nursery: trio.Nursery) -> Bedside:
    bedside = Bedside()
    nursery.start_soon(bedside.alarms.run, bedside.ring)
    return bedside


async def test_each_key_is_rung_once_at_its_time(
    bedside: Bedside, autojump_clock: MockClock
) -> None:
    for key, due_ms in (("b", 2_000), ("a", 1_000), ("c", 3_000)):
        bedside.alarms.set(key, due_ms)
    await trio.sleep(10)
    assert [key for key, _ in bedside.rings] == ["a", "b", "c"]
    assert all(
        0 <= at - due < 2 for (_, at), due in zip(bedside.rings, (1000, 2000, 3000), strict=True)
    )
    assert len(bedside.alarms) == 0


async def test_the_newest_time_counts_and_none_means_never(
    bedside: Bedside, autojump_clock: MockClock
) -> None:
    bedside.alarms.set("later", 1_000)
    bedside.alarms.set("later", 5_000)
    bedside.alarms.set("never", 1_000)
    bedside.alarms.set("never", None)
    await trio.sleep(4)
    assert bedside.rings == []
    await trio.sleep(4)
    assert [key for key, _ in bedside.rings] == ["later"]


async def test_an_earlier_alarm_wakes_who_sleeps_until_a_later_one(
    bedside: Bedside, autojump_clock: MockClock
) -> None:
    bedside.alarms.set("late", 50_000)
    await wait_all_tasks_blocked()
    bedside.alarms.set("early", 1_000)
    await trio.sleep(2)
    assert [key for key, _ in bedside.rings] == ["early"]


async def test_a_time_that_has_passed_rings_at_once(
    bedside: Bedside, autojump_clock: MockClock
) -> None:
    await trio.sleep(10)
    bedside.alarms.set("overdue", 1)
    await wait_all_tasks_blocked()
    assert bedside.rings == [("overdue", bedside.clock.now_ms())]


async def test_no_millisecond_keeps_it_turning_without_time_passing(
    bedside: Bedside, autojump_clock: MockClock
) -> None:
    for due_ms in range(1, 3_000):
        bedside.alarms.set(str(due_ms), due_ms)
    await trio.sleep(4)
    assert len(bedside.rings) == 2_999


async def test_a_clock_corrected_forwards_rings_within_its_nap(
    bedside: Bedside, autojump_clock: MockClock
) -> None:
    bedside.alarms.set("tomorrow", 86_400_000)
    await trio.sleep(1)
    bedside.clock.see(86_400_000)
    await trio.sleep(61)
    assert [key for key, _ in bedside.rings] == ["tomorrow"]


def test_the_heap_stays_bounded_over_a_hundred_thousand_orders() -> None:
    alarms = Alarms(LogClock(lambda: 0.0))
    largest = 0
    for number in range(100_000):
        alarms.set(f"o{number}", 1_800_000 + number)
        if number >= 100:
            alarms.set(f"o{number - 100}", None)
        largest = max(largest, len(alarms._heap))
    assert len(alarms) == 100
    assert largest <= 2 * 101 + STALE_MIN + 1
