"""The log's clock: what the broker said the time was, carried on by this machine's monotonic clock.

Deadlines live in states that outlast a process, so they need a time that every owner agrees on; and a clock that an
operator sets back or forth must not expire an order. So nobody here asks for the wall-clock time.
"""

from collections.abc import Callable

import trio


class LogClock:
    """Milliseconds since 1970 as the broker counts them. Never goes backwards."""

    def __init__(self, monotonic_s: Callable[[], float] = trio.current_time) -> None:
        self._monotonic_s = monotonic_s
        self._ahead_ms = 0

    def see(self, time_ms: int) -> None:
        """Learn from the time that the broker gave a message: it is at least that late."""
        ahead_ms = time_ms - int(self._monotonic_s() * 1000)
        self._ahead_ms = max(self._ahead_ms, ahead_ms)

    def now_ms(self) -> int:
        return int(self._monotonic_s() * 1000) + self._ahead_ms

    def when(self, at_ms: int) -> float:
        """The same moment on the monotonic clock, in seconds: what to sleep until."""
        # Half a millisecond late: rounded down to a whole one, it must not turn out too early.
        return (at_ms - self._ahead_ms + 0.5) / 1000
