"""The children of one supervisor, their timers, and the next steps their marks allow. No trio: orders come out.

Events only mark children: to go down (`fate`), to come up (`wait`), not before some time (`due`). `proceed`
then takes every step that the marks and the strategy allow. So a failure during a back-off, a stop during
a restart or a second failure during a stop need no cases of their own.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count

from supervisors import reports, strategy
from supervisors.child import Child, Fate, Phase
from supervisors.intensity import RestartWindow
from supervisors.spec import Strategy, SupervisorSpec

ROOT = "/"


class Mode(Enum):
    BOOTING = "booting"  # Until every child has started once.
    RUNNING = "running"
    ENDING = "ending"  # Stopping all children.
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Launch:
    child: Child


@dataclass(frozen=True, slots=True)
class Cancel:
    child: Child


@dataclass(frozen=True, slots=True)
class Abandon:
    """The child outlived its cancellation: show where it sits, and tell the machine that it is lost."""

    child: Child


@dataclass(frozen=True, slots=True)
class Ready:
    """Every child has started once."""


@dataclass(frozen=True, slots=True)
class Tell:
    report: reports.Report


Order = Launch | Cancel | Abandon | Ready | Tell


class Roster:
    def __init__(self, spec: SupervisorSpec, path: str, now: float) -> None:
        self.spec = spec
        self.path = path
        self.since = now
        self.mode = Mode.BOOTING
        self.children: dict[str, Child] = {child.id: Child(child, now) for child in spec.children}
        self.window = RestartWindow(spec.intensity, spec.period_s)
        self.verdict: BaseException | None = (
            None  # What the supervisor ends with; None: in good order.
        )
        self.shutdown_cap_s = math.inf
        self.instance_numbers = count(1)
        self._is_fatal = False
        self._all_changed = False  # Since the last steps were taken.
        self._orders: list[Order] = []
        self._alive = 0
        self._timers: list[tuple[float, int, Child]] = []  # A heap; entries may be out of date.
        self._ticket = count()
        self._is_ordered = strategy.is_ordered(spec.strategy)

    def take_orders(self) -> list[Order]:
        orders, self._orders = self._orders, []
        return orders

    def path_of(self, child: Child) -> str:
        return child.id if self.path == ROOT else f"{self.path}/{child.id}"

    # Marks.

    def add(self, child: Child) -> None:
        self.children[child.id] = child

    def forget(self, child: Child) -> None:
        if self.children.get(child.id) is child:
            del self.children[child.id]

    def wait(self, child: Child, due: float, now: float) -> None:
        """Mark a child to be started, not before `due`."""
        child.enter(Phase.WAITING, now)
        child.due = due
        if due > now:
            self.look_at(child, due)

    def end(self, verdict: BaseException | None, now: float, *, is_fatal: bool = False) -> None:
        """Mark everything to go down for good. A fatal verdict overrides a milder one."""
        if is_fatal and not self._is_fatal:
            self.verdict, self._is_fatal = verdict, True
        if self.mode in (Mode.ENDING, Mode.ENDED):
            return
        self.mode = Mode.ENDING
        self._all_changed = True
        self.verdict = self.verdict or verdict
        for child in self.children.values():
            if child.alive:
                child.fate = Fate.REST
            elif child.phase is Phase.WAITING:
                self.rest(child, now)

    def rest(self, child: Child, now: float) -> None:
        """Keep a child that is not running from being started."""
        child.enter(Phase.IDLE, now)
        child.fate = Fate.REST
        child.answer_stopped()

    # Steps.

    def proceed(self, now: float, touched: Child | None = None) -> None:
        """Take every step that is now allowed; `touched` is the child that changed, if only one did."""
        if self._all_changed:
            touched, self._all_changed = None, False
        for child in self._next_down(touched):
            self.cancel(child, now)
        if self.mode is Mode.ENDING and self._alive == 0:
            self.mode = Mode.ENDED
        if self.mode in (Mode.ENDING, Mode.ENDED):
            return
        for child in self._next_up(now, touched):
            self._launch(child, now)
        if self.mode is Mode.BOOTING and self._is_booted():
            self.mode = Mode.RUNNING
            self._orders.append(Ready())

    def cancel(self, child: Child, now: float) -> None:
        child.enter(Phase.STOPPING, now)
        self.look_at(child, now + child.stop_limit_s(self.shutdown_cap_s))
        self._orders.append(Cancel(child))

    def gone(self, child: Child, now: float) -> None:
        """Take note that a child is not alive any more."""
        self._alive -= child.alive
        child.enter(Phase.IDLE, now)
        child.life = None

    def lose(self, child: Child, now: float) -> None:
        self._alive -= child.alive
        child.enter(Phase.LOST, now)
        child.fate = Fate.REST  # Should it end after all, nothing follows from it.

    def abandon(self, child: Child) -> None:
        self._orders.append(Abandon(child))

    def tell(self, report: reports.Report) -> None:
        self._orders.append(Tell(report))

    def _next_down(self, touched: Child | None) -> Sequence[Child]:
        if self.spec.strategy is Strategy.DYNAMIC or not (
            self._is_ordered or self.mode is Mode.ENDING
        ):
            return strategy.next_to_stop(self._changed(touched), one_at_a_time=False)
        return strategy.next_to_stop(list(self.children.values()), one_at_a_time=True)

    def _next_up(self, now: float, touched: Child | None) -> Sequence[Child]:
        if self._is_ordered:
            return strategy.next_in_order(list(self.children.values()), now)
        if self.mode is Mode.BOOTING:
            return strategy.next_at_boot(list(self.children.values()), now)
        return strategy.due(self._changed(touched), now)

    def _changed(self, touched: Child | None) -> Sequence[Child]:
        # Where children are independent one event costs one look, however many children there are.
        return list(self.children.values()) if touched is None else [touched]

    def _launch(self, child: Child, now: float) -> None:
        child.enter(Phase.STARTING, now)
        child.ready_at = child.fate = child.blame = None
        assert child.spec.start_timeout_s is not None
        self.look_at(child, now + child.spec.start_timeout_s)
        self._alive += 1
        self._orders.append(Launch(child))

    def _is_booted(self) -> bool:
        coming = (Phase.WAITING, Phase.STARTING, Phase.STOPPING)
        return all(child.born or child.phase not in coming for child in self.children.values())

    # Timers: one for each child, for whatever its phase waits for.

    def look_at(self, child: Child, when: float) -> None:
        child.deadline = when
        if when < math.inf:
            heapq.heappush(self._timers, (when, next(self._ticket), child))

    def next_deadline(self) -> float:
        while self._timers and self._timers[0][2].deadline != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else math.inf

    def take_due(self, now: float) -> Child | None:
        """A child whose deadline has passed, once."""
        if self.next_deadline() > now:
            return None
        _, _, child = heapq.heappop(self._timers)
        child.deadline = math.inf
        return child
