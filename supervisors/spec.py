"""What a supervisor is told: child and supervisor specs, as values, and the check that refuses bad ones."""

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeGuard

from supervisors.backoff import Backoff
from supervisors.errors import ConfigError


class Strategy(Enum):
    """Who is restarted together with a child that failed."""

    ONE_FOR_ONE = "one_for_one"  # The failed child alone.
    ONE_FOR_ALL = "one_for_all"  # Everybody.
    REST_FOR_ONE = "rest_for_one"  # The failed child and those started after it.
    DYNAMIC = "dynamic"  # Many instances of one template, each alone; OTP's simple_one_for_one.


class Restart(Enum):
    """Which ends of a child are answered with a new start."""

    PERMANENT = "permanent"  # Every end.
    TRANSIENT = "transient"  # Abnormal ends.
    TEMPORARY = "temporary"  # None; the spec is forgotten with the child.


class Kind(Enum):
    WORKER = "worker"
    SUPERVISOR = "supervisor"


class AutoShutdown(Enum):
    """Whether the end of significant children ends their supervisor."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class Brutal(Enum):
    BRUTAL = "brutal"


class Ignore(Enum):
    IGNORE = "ignore"


BRUTAL: Final = Brutal.BRUTAL  # As `shutdown_s`: cancel and grant no time at all.
IGNORE: Final = (
    Ignore.IGNORE
)  # Returned by a child instead of starting: keep me, but do not run me.

WORKER_SHUTDOWN_S = 5.0  # OTP's default.
WORKER_START_TIMEOUT_S = (
    10.0  # OTP waits for ever; a child that never gets ready is a failure here.
)

StartFunction = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start, stop and restart one child.

    `start(*args, task_status=...)` calls `task_status.started()` when it is ready and then runs until it is
    cancelled, returns or raises. Times left out follow the kind: a worker has ten seconds to start and five
    to stop, a supervisor as long as its own children need.
    """

    id: str
    start: StartFunction
    args: tuple[object, ...] = ()
    restart: Restart = Restart.PERMANENT
    shutdown_s: float | Literal[Brutal.BRUTAL] | None = None
    kind: Kind = Kind.WORKER
    significant: bool = False
    start_timeout_s: float | None = None
    heartbeat_s: float | None = None  # Three of these without `task_status.beat()` count as hung.

    def __post_init__(self) -> None:
        is_worker = self.kind is Kind.WORKER
        if self.shutdown_s is None:
            object.__setattr__(self, "shutdown_s", WORKER_SHUTDOWN_S if is_worker else math.inf)
        if self.start_timeout_s is None:
            limit_s = WORKER_START_TIMEOUT_S if is_worker else math.inf
            object.__setattr__(self, "start_timeout_s", limit_s)


@dataclass(frozen=True, slots=True)
class SupervisorSpec:
    """The children in their starting order, and how their failures are answered.

    More than `intensity` restarts within `period_s`, over all children together, end the supervisor.
    """

    children: tuple[ChildSpec, ...] = ()
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = 1
    period_s: float = 5.0
    backoff: Backoff = field(default_factory=Backoff)
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    template: ChildSpec | None = None  # What a DYNAMIC supervisor starts instances of.


def check(spec: SupervisorSpec) -> None:
    """Refuse a spec, nested ones included, with every fault found.

    Raises:
        ConfigError: nothing was started.
    """
    if faults := tuple(_supervisor_faults(spec, "")):
        raise ConfigError(faults)


def check_child(child: ChildSpec, auto_shutdown: AutoShutdown) -> None:
    """Refuse a child that is about to be added by hand; raises ConfigError."""
    if faults := tuple(_child_faults(child, auto_shutdown, "")):
        raise ConfigError(faults)


def nested_spec(child: ChildSpec) -> SupervisorSpec | None:
    """The spec of the supervisor that this child will run, where it is known before the start."""
    inner = getattr(child.start, "spec", None)
    return inner if isinstance(inner, SupervisorSpec) else None


def _supervisor_faults(spec: object, where: str) -> Iterator[str]:
    if not isinstance(spec, SupervisorSpec):
        yield f"{where}expected a SupervisorSpec, got {type(spec).__name__}"
        return
    if not isinstance(spec.strategy, Strategy):
        yield f"{where}unknown strategy {spec.strategy!r}; use a member of Strategy"
    if not isinstance(spec.auto_shutdown, AutoShutdown):
        yield f"{where}unknown auto_shutdown {spec.auto_shutdown!r}; use a member of AutoShutdown"
    yield from _limit_faults(spec, where)
    yield from _children_faults(spec, where)


def _limit_faults(spec: SupervisorSpec, where: str) -> Iterator[str]:
    faults = len(spec.backoff.faults())
    yield from (f"{where}backoff: {fault}" for fault in spec.backoff.faults())
    if not _is_int(spec.intensity) or spec.intensity < 0:
        yield f"{where}intensity is {spec.intensity!r}; use a whole number of restarts, 0 or more"
        faults += 1
    if not _is_number(spec.period_s) or not 0 < spec.period_s < math.inf:
        yield f"{where}period_s is {spec.period_s!r}; use seconds above 0"
        faults += 1
    if faults:
        return
    waiting_s = spec.backoff.longest_total_s(spec.intensity)
    if waiting_s >= spec.period_s:
        yield (
            f"{where}{spec.intensity} back-offs may take {waiting_s:g} s and period_s is"
            f" {spec.period_s:g}: the restart limit could never trip; raise period_s or lower"
            " intensity or backoff.max_s"
        )


def _children_faults(spec: SupervisorSpec, where: str) -> Iterator[str]:
    if (spec.strategy is Strategy.DYNAMIC) != (spec.template is not None):
        yield f"{where}a template belongs to the DYNAMIC strategy, and only there"
    if spec.strategy is Strategy.DYNAMIC and spec.children:
        yield f"{where}a DYNAMIC supervisor has a template instead of children"
    seen: set[object] = set()
    for child in (*spec.children, *([spec.template] if spec.template else [])):
        yield from _child_faults(child, spec.auto_shutdown, where)
        if isinstance(child, ChildSpec):
            if child.id in seen:
                yield f"{where}child {child.id!r}: the id is used twice; ids are unique in a supervisor"
            seen.add(child.id)


def _child_faults(child: object, auto_shutdown: AutoShutdown, where: str) -> Iterator[str]:
    if not isinstance(child, ChildSpec):
        yield f"{where}expected a ChildSpec, got {type(child).__name__}"
        return
    if not isinstance(child.id, str) or not child.id or "/" in child.id:
        yield f"{where}child id {child.id!r}: use a text that is not empty and has no '/'"
    here = f"{where}child {child.id!r}: "
    if not _is_async_callable(child.start):
        yield f"{here}start is {child.start!r}; use an async function"
    if not isinstance(child.restart, Restart):
        yield f"{here}unknown restart type {child.restart!r}; use a member of Restart"
    if not isinstance(child.kind, Kind):
        yield f"{here}unknown kind {child.kind!r}; use a member of Kind"
    yield from _time_faults(child, here)
    yield from _significance_faults(child, auto_shutdown, here)
    if (inner := nested_spec(child)) is not None:
        yield from _supervisor_faults(inner, f"{where}{child.id}/")


def _time_faults(child: ChildSpec, here: str) -> Iterator[str]:
    shutdown_s, start_s, heartbeat_s = child.shutdown_s, child.start_timeout_s, child.heartbeat_s
    if shutdown_s is not BRUTAL and not (_is_number(shutdown_s) and shutdown_s >= 0):
        yield f"{here}shutdown_s is {shutdown_s!r}; use seconds >= 0, math.inf or BRUTAL"
    if not (_is_number(start_s) and start_s > 0):
        yield f"{here}start_timeout_s is {start_s!r}; use seconds above 0 or math.inf"
    if heartbeat_s is not None and not (_is_number(heartbeat_s) and heartbeat_s > 0):
        yield f"{here}heartbeat_s is {heartbeat_s!r}; use seconds above 0 or None"


def _significance_faults(child: ChildSpec, auto: AutoShutdown, here: str) -> Iterator[str]:
    if child.significant and child.restart is Restart.PERMANENT:
        yield f"{here}a permanent child never ends for good, so it cannot be significant"
    if child.significant and auto is AutoShutdown.NEVER:
        yield f"{here}significant means nothing while auto_shutdown is NEVER"


def _is_async_callable(start: object) -> bool:
    while isinstance(start, functools.partial):
        start = start.func
    if inspect.iscoroutinefunction(start):
        return True
    # Of an object it is the method of its type that is called; a class is not its instances.
    return callable(start) and inspect.iscoroutinefunction(type(start).__call__)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isnan(value)
