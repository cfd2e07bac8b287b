"""Play a schedule: open the world, let the orders and the faults come, heal, wait for quiet, and keep what is left.

The same schedule gives the same history, to the byte: time is virtual, chance is seeded, the order in which tasks run
is drawn from the seed, and nothing here looks at anything else.
"""

import gc
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from types import ModuleType
from typing import Any, Final

import structlog
import trio
import trio.testing
from trio.testing import MockClock

from actors.order_state import TERMINAL, OrderStatus
from runtime import mailbox, shard, tail, views
from runtime.audit.journal import Attempt
from runtime.desk_types import status_of
from runtime.explore.customers import Customers
from runtime.explore.nemesis import StepCounter
from runtime.explore.platform import Platform
from runtime.explore.schedule import Conditions, Fault, Kind, Schedule, When
from runtime.explore.world import World
from runtime.memory import MemoryStore
from runtime.simulator_ledger import Line

ANSWERED_S: Final = (
    900.0  # Of virtual time: every customer has his answers by then, whatever goes wrong.
)
QUIET_S: Final = 240.0
"""After the last fault: a payment's longest pause, a provider's silence, and some attempts at each call."""
ROUNDS_MAX: Final = 250_000  # Of the scheduler, each a step of all who can go on: some ten times what any run needs.
SETTLE_S: Final = 3.0  # For what can wait: sales, views, the cursor.
LOOK_AGAIN_S: Final = 0.25
LOOK_AGAIN_S_MAX: Final = 8.0

NARROW: Final[tuple[tuple[ModuleType, str, int], ...]] = (
    (shard, "GROUP_FACTS_MAX", 2),
    (shard, "SNAPSHOT_RECORDS", 3),
    (shard, "CURSOR_LAG_MAX", 12),
    (tail, "WINDOW_FACTS", 4),
    (mailbox, "ROOM", 3),
    (views, "BATCH_MAX", 2),
)


@dataclass(slots=True)
class Played:
    """What one run has left behind."""

    schedule: Schedule
    store: MemoryStore
    ledger: Sequence[Line]
    journal: Sequence[Attempt]
    promised: Sequence[str]
    fired: Sequence[tuple[float, Fault]]
    seen: Counter[str]
    surprises: list[str]
    counts: Counter[str]
    """How many messages and steps were counted."""
    healed_s: float
    took_s: float
    is_endless: bool = False
    """Broken off: it went on and on, perhaps without any time passing."""

    def digest(self) -> str:
        """One hash over everything that happened."""
        digest = blake2b(digest_size=16)
        for entry in self.store.entries:
            said = (entry.seq, entry.subject, entry.time_ms, sorted(entry.headers.items()))
            digest.update(repr(said).encode() + entry.payload)
        for kept in (self.store.views, self.store.snapshots):
            digest.update(repr(list(kept.items())).encode())
        rest = (self.ledger, self.journal, self.fired, sorted(self.seen.items()), self.surprises)
        digest.update(repr((*rest, self.took_s)).encode())
        return digest.hexdigest()


def play(schedule: Schedule) -> Played:
    """Play it from the beginning to the end, in virtual time."""
    with _deterministic(schedule.seed), _limits(schedule.conditions), _silent():
        return trio.run(
            _play, schedule, clock=MockClock(autojump_threshold=0), strict_exception_groups=True
        )


async def _play(schedule: Schedule) -> Played:
    async with trio.open_nursery() as nursery:
        world = World(schedule, nursery)
        platform = Platform(world)
        customers = Customers(world, schedule)
        rounds = RoundCounter(nursery.cancel_scope.cancel)
        with _instrumented(rounds):
            await _live(world, platform, customers)
        nursery.cancel_scope.cancel()
    return Played(
        schedule,
        world.store,
        world.ledger.lines,
        customers.journal,
        list(customers.promised),
        world.nemesis.fired,
        world.nemesis.seen,
        world.surprises,
        Counter({str(when): number for when, number in world.nemesis.counts.items()}),
        platform.healed_s,
        trio.current_time(),
        is_endless=rounds.are_too_many,
    )


async def _live(world: World, platform: Platform, customers: Customers) -> None:
    """From the opening of the shop until nobody has anything to do any more."""
    world.nursery.start_soon(platform.keep_running)
    await trio.testing.wait_all_tasks_blocked()
    with _instrumented(StepCounter(world.nemesis), wanted=world.nemesis.counts_steps):
        world.nursery.start_soon(world.nemesis.keep_time)
        with trio.move_on_after(ANSWERED_S) as patience:
            await customers.stock_up()
            await customers.shop()
            await trio.sleep_until(_last_time_s(world.schedule))
    if patience.cancelled_caught:
        world.surprises.append(f"customers have no answer after {ANSWERED_S:g} s")
    platform.heal()
    await _wait_quiet(world, customers)
    await world.newest.stop()


def _last_time_s(schedule: Schedule) -> float:
    """When the last fault comes that waits for a time."""
    return max((fault.at / 1000 for fault in schedule.faults if fault.when is When.MS), default=0.0)


async def _wait_quiet(world: World, customers: Customers) -> None:
    """Until every promise is kept and nobody has anything to do; what is parked is asked about again, once."""
    await _wait_ended(world, customers, TERMINAL | {OrderStatus.NEEDS_ATTENTION})
    for order_id in customers.promised:
        if _status(world, order_id) == OrderStatus.NEEDS_ATTENTION:
            world.nemesis.seen["an order needed attention"] += 1
            await customers.retry(order_id)
    for order_id in await _wait_ended(world, customers, TERMINAL):
        status = _status(world, order_id) or "unheard of"
        world.surprises.append(f"{order_id} is {status} after {_patience_s(world):g} s")
    await trio.sleep(SETTLE_S)
    with trio.move_on_after(QUIET_S) as patience:
        while not world.newest.is_quiet:  # noqa: ASYNC110  # Whichever is the newest by then.
            await trio.sleep(LOOK_AGAIN_S)
    if patience.cancelled_caught:
        world.surprises.append(f"something is still going on after {QUIET_S:g} s")


async def _wait_ended(world: World, customers: Customers, ends: Collection[str]) -> list[str]:
    """Look, ever less often, until all orders have come so far or the time is over; returns those that have not."""
    until_s, pause_s = trio.current_time() + _patience_s(world), LOOK_AGAIN_S
    while True:
        late = [one for one in customers.promised if _status(world, one) not in ends]
        if not late or trio.current_time() > until_s:
            return late
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, LOOK_AGAIN_S_MAX)


def _patience_s(world: World) -> float:
    """What was to come at a time comes later by as much as the broker's clock was set back, if we started since."""
    jumps_ms = (fault.for_ms for _, fault in world.nemesis.fired if fault.kind is Kind.JUMP)
    return QUIET_S + sum(max(0, -jump_ms) for jump_ms in jumps_ms) / 1000


def _status(world: World, order_id: str) -> str:
    view = world.store.views.get(order_id)
    return "" if view is None else status_of(view)


# --- the same every time ---


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Let trio draw the order of tasks from a seed, and keep the garbage collector from running tasks' finalizers."""
    run: Any = trio._core._run  # noqa: SLF001  # Where trio lets Hypothesis do the same.
    with _set_to(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True), _set_to(run, "_r", Random(seed)):  # noqa: S311
        was_collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_collecting:
                gc.enable()


@contextmanager
def _limits(conditions: Conditions) -> Iterator[None]:
    """With narrow limits, a few orders fill groups, snapshots, windows and mailboxes."""
    with ExitStack() as stack:
        for module, name, value in NARROW if conditions.narrow else ():
            stack.enter_context(_set_to(module, name, value))
        yield


@contextmanager
def _set_to(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Let a module's name mean something else for a while."""
    usual = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, usual)


@contextmanager
def _silent() -> Iterator[None]:
    """Without log lines: what goes wrong here is wanted, and there is a lot of it."""
    was, configured = structlog.get_config(), structlog.is_configured()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**was) if configured else structlog.reset_defaults()


class RoundCounter(trio.abc.Instrument):
    """Counts the rounds of the scheduler, and lets somebody know when these are more than any run needs."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._rounds = 0
        self.are_too_many = False

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # However long it was.
        self._rounds += 1
        if self._rounds > ROUNDS_MAX and not self.are_too_many:
            self.are_too_many = True
            self._tell()


@contextmanager
def _instrumented(instrument: trio.abc.Instrument, *, wanted: bool = True) -> Iterator[None]:
    if not wanted:
        yield
        return
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)
