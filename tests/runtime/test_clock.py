"""The log's clock: the broker's time, carried on by a monotonic clock."""

from runtime.clock import LogClock


class Monotonic:
    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def test_it_shows_the_brokers_time_and_carries_it_on() -> None:
    monotonic = Monotonic()
    clock = LogClock(monotonic)
    clock.see(1_700_000_000_000)
    monotonic.at_s += 2.5
    assert clock.now_ms() == 1_700_000_002_500


def test_an_older_entry_does_not_set_it_back() -> None:
    clock = LogClock(Monotonic())
    clock.see(1_700_000_000_000)
    clock.see(1_600_000_000_000)
    assert clock.now_ms() == 1_700_000_000_000


def test_a_moment_slept_until_has_come_whatever_the_rounding() -> None:
    monotonic = Monotonic()
    clock = LogClock(monotonic)
    clock.see(1_700_000_000_123)
    for due_ms in range(1_700_000_000_123, 1_700_000_005_000):
        monotonic.at_s = clock.when(due_ms)
        assert due_ms <= clock.now_ms() <= due_ms + 1
