"""How long to wait before a restart: exponential, bounded, with jitter. Pure; the dice are passed in."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

DOUBLINGS_MAX = (
    62  # Beyond this a delay is at max_s whatever min_s is, and floats stay far from overflow.
)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The n-th restart in a row waits `min(max_s, min_s * 2**n)`, give or take the share `jitter` of it.

    A child that has run for `stable_after_s` (default: half of min_s + max_s, as in Akka) starts counting
    anew. A child restarted `max_consecutive` times without ever getting that far is given up, however far
    apart its restarts lie; None means that only the restart intensity decides.
    """

    min_s: float = 0.1
    max_s: float = 5.0
    jitter: float = 0.2
    stable_after_s: float | None = None
    max_consecutive: int | None = None

    @property
    def stable_s(self) -> float:
        if self.stable_after_s is None:
            return (self.min_s + self.max_s) / 2
        return self.stable_after_s

    def delay_s(self, restarts_in_a_row: int, rng: Random) -> float:
        return self._plain_s(restarts_in_a_row) * (1 + self.jitter * rng.uniform(-1, 1))

    def longest_total_s(self, restarts: int) -> float:
        """The most that so many restarts in a row can wait, all together."""
        growing = min(restarts, DOUBLINGS_MAX)
        plain_s = sum(self._plain_s(n) for n in range(growing)) + (restarts - growing) * self.max_s
        return plain_s * (1 + self.jitter)

    def exhausted(self, restarts_in_a_row: int) -> bool:
        return self.max_consecutive is not None and restarts_in_a_row >= self.max_consecutive

    def faults(self) -> tuple[str, ...]:
        return tuple(self._faults())

    def _plain_s(self, restarts_in_a_row: int) -> float:
        return min(self.max_s, self.min_s * 2.0 ** min(restarts_in_a_row, DOUBLINGS_MAX))

    def _faults(self) -> Iterator[str]:
        if not 0 <= self.min_s <= self.max_s < math.inf:
            yield f"min_s {self.min_s!r} and max_s {self.max_s!r}: use 0 <= min_s <= max_s"
        if not 0 <= self.jitter < 1:
            yield f"jitter is {self.jitter!r}; use a share from 0 to below 1"
        if self.stable_after_s is not None and not self.stable_after_s >= 0:
            yield f"stable_after_s is {self.stable_after_s!r}; use seconds >= 0"
        if self.max_consecutive is not None and self.max_consecutive < 0:
            yield f"max_consecutive is {self.max_consecutive!r}; use 0 or more, or None"
