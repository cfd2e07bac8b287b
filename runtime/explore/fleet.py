"""Many runs: seed after seed, in one process or in several, summed up."""

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from threading import Semaphore

from runtime.explore.judge import HOPED_FOR, Outcome, run_seed

COLLECT_EVERY = 25  # Runs: each leaves some thousand objects that refer to each other.
FAILURES_MAX = 20  # Kept in full; of further ones the seed is enough.
SEEDS_AT_ONCE = 10  # Handed to a worker: a second's work.


@dataclass(slots=True)
class Summary:
    """What many runs have shown."""

    seeds: int = 0
    orders: int = 0
    took_s: float = 0.0
    virtual_s: float = 0.0
    fired: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    """The seeds with findings."""
    failures: list[Outcome] = field(default_factory=list)

    @property
    def never_seen(self) -> list[str]:
        """What should happen sometimes, and never did."""
        return [hoped for hoped in HOPED_FOR if not self.seen[hoped]]

    @property
    def seeds_per_s(self) -> float:
        return self.seeds / self.took_s if self.took_s else 0.0

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.orders += outcome.orders
        self.virtual_s += outcome.virtual_s
        self.fired += outcome.fired
        self.checked += outcome.checked
        self.seen += outcome.seen
        if not outcome.holds:
            self.failed.append(outcome.schedule.seed)
            if len(self.failures) < FAILURES_MAX:
                self.failures.append(outcome)


def explore(
    seeds: Iterable[int],
    *,
    jobs: int = 1,
    limit_s: float = float("inf"),
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Summary:
    """Run each seed and judge it; no new one is begun after `limit_s`. An interrupt ends it with what there is."""
    summary = Summary()
    started_s = time.monotonic()
    seeds_in_time = takewhile(lambda _: time.monotonic() - started_s < limit_s, seeds)
    with suppress(KeyboardInterrupt), _outcomes(seeds_in_time, jobs) as outcomes:
        for outcome in outcomes:
            summary.add(outcome)
            on_outcome(outcome)
    summary.took_s = time.monotonic() - started_s
    return summary


@contextmanager
def _outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Iterable[Outcome]]:
    if jobs == 1:
        yield _run_all(seeds)
        return
    room = Semaphore(jobs * 2)  # The pool takes all that it is offered, be it without end.
    # Not forked: what the parent has in memory is none of theirs.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        done = pool.imap(_run_batch, _batched(seeds, room))
        yield (outcome for batch in done for outcome in _with(room, batch))


def _with(room: Semaphore, batch: list[Outcome]) -> list[Outcome]:
    room.release()
    return batch


def _run_batch(seeds: Sequence[int]) -> list[Outcome]:
    return list(_run_all(seeds))


def _run_all(seeds: Iterable[int]) -> Iterator[Outcome]:
    """One after the other. Garbage is collected between runs: within them it would disturb their order."""
    was_collecting = gc.isenabled()
    gc.disable()
    gc.freeze()  # What is there now stays; only what the runs leave is looked at.
    try:
        for number, seed in enumerate(seeds, 1):
            yield run_seed(seed)
            if number % COLLECT_EVERY == 0:
                gc.collect()
    finally:
        gc.unfreeze()
        if was_collecting:
            gc.enable()


def _batched(seeds: Iterable[int], room: Semaphore) -> Iterator[list[int]]:
    remaining = iter(seeds)
    while True:
        room.acquire()
        batch = list(islice(remaining, SEEDS_AT_ONCE))
        if not batch:
            return
        yield batch
