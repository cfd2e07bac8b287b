"""`supervise` runs a supervisor, `child_supervisor` nests one, and `Supervisor` is how one talks to it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Literal

import trio

from supervisors import admin
from supervisors.engine import ChildStatus, Engine, Surroundings
from supervisors.errors import NotFound
from supervisors.reports import OnReport
from supervisors.spec import IGNORE, ChildSpec, Ignore, Kind, Restart, SupervisorSpec, check
from supervisors.tree import (
    ChildInfo,
    Counts,
    Node,
    child_node,
    count_children,
    list_children,
    state_of_supervisor,
)

OnOpen = Callable[["Supervisor"], None]
TaskStatus = trio.TaskStatus["Supervisor"] | ChildStatus
Config = SupervisorSpec | Callable[[], SupervisorSpec | Ignore]


async def supervise(
    config: Config,
    *,
    on_report: OnReport | None = None,
    on_open: OnOpen | None = None,
    rng: Random | None = None,
    never_restart: tuple[type[BaseException], ...] = (),
    task_status: TaskStatus = trio.TASK_STATUS_IGNORED,
) -> Literal[Ignore.IGNORE] | None:
    """Run a supervisor until it is stopped, cancelled, or gives up.

    `config` is a spec, or a function that makes one anew for each start and may decline with IGNORE. Calls
    `task_status.started(Supervisor)` when all children have started; `on_open` gets the same handle before
    the first of them, when looking and stopping already work. Cancelling it stops the children in reverse
    order within their times. As a child of another supervisor it inherits `on_report`, `rng` and
    `never_restart`, the errors that no restart cures.

    Raises:
        ConfigError: the spec cannot work; nothing was started.
        StartFailed: a child did not start for the first time; the others were stopped again.
        MaxRestartsExceeded: it gave up; the last failure is the `__cause__`.
        Shutdown: significant children have ended.
    """
    inherited = task_status.surroundings if isinstance(task_status, ChildStatus) else Surroundings()

    def adopt(engine: Engine) -> None:
        inherited.adopt(engine)
        if on_open is not None:
            on_open(Supervisor(engine))

    surroundings = replace(
        inherited,
        adopt=adopt,
        on_report=on_report or inherited.on_report,
        rng=rng or inherited.rng,
        never_restart=(*inherited.never_restart, *never_restart),
    )
    return await supervise_in(surroundings, config, task_status)


async def supervise_in(
    surroundings: Surroundings,
    config: Config,
    task_status: TaskStatus = trio.TASK_STATUS_IGNORED,
) -> Literal[Ignore.IGNORE] | None:
    """`supervise`, with everything inherited given as one value."""
    spec = config() if callable(config) else config
    if spec is IGNORE:
        return IGNORE
    check(spec)
    engine = Engine(spec, surroundings)
    await engine.run(lambda: task_status.started(Supervisor(engine)))
    return None


def child_supervisor(
    id: str,  # noqa: A002 - the name that ChildSpec has for it
    config: Config,
    *,
    restart: Restart = Restart.PERMANENT,
    shutdown_s: float = math.inf,
    significant: bool = False,
) -> ChildSpec:
    """A child that is a supervisor. It may take as long to start and to stop as its own children need."""
    return ChildSpec(
        id=id,
        start=_Nested(config),
        restart=restart,
        shutdown_s=shutdown_s,
        kind=Kind.SUPERVISOR,
        significant=significant,
    )


@dataclass(frozen=True, slots=True)
class _Nested:
    spec: Config  # Where it is a SupervisorSpec, `check` of the root looks into it before anything starts.

    async def __call__(self, *, task_status: ChildStatus) -> object:
        return await supervise(self.spec, task_status=task_status)


class Supervisor:
    """A running supervisor, to look at and to administer. Usable from any task of its trio run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # Looking: answered at once and consistent, whatever the supervisor is busy with.

    def snapshot(self) -> Node:
        """This supervisor and everything below it, at this moment."""
        roster = self._engine.roster
        root = Node(
            id=roster.path,
            path=roster.path,
            kind=Kind.SUPERVISOR,
            state=state_of_supervisor(roster),
            since=roster.since,
        )
        return _with_children(root, self._engine, trio.current_time())

    def which_children(self) -> tuple[ChildInfo, ...]:
        return list_children(self._engine.roster)

    def count_children(self) -> Counts:
        return count_children(self._engine.roster)

    def get_childspec(self, child_id: str) -> ChildSpec:
        return admin.find(self._engine.roster, child_id).spec

    def find(self, path: str) -> "Supervisor":
        """The running supervisor at a path below this one, such as "actors/order"."""
        engine = self._engine
        for child_id in path.strip("/").split("/"):
            child = engine.roster.children.get(child_id)
            nested = engine.engine_of(child) if child is not None else None
            if nested is None:
                raise NotFound(path)
            engine = nested
        return Supervisor(engine)

    # Changing: answered when it has happened, refused with an AdminFault.

    async def start_child(self, spec: ChildSpec) -> object:
        """Add a child at the end and start it; returns what it gave to `task_status.started()`.

        Raises:
            StartFailed: it did not start, and its spec was not kept.
            AlreadyStarted, AlreadyPresent: the id is taken.
        """
        return await self._engine.ask(partial(admin.start_child, spec=spec))

    async def start_instance(self, *args: object) -> object:
        """Start one more child of a DYNAMIC supervisor, with these arguments after the template's."""
        return await self._engine.ask(partial(admin.start_instance, args=args))

    async def stop_child(self, child_id: str) -> None:
        """Stop a child within its shutdown time; neither a failure nor a restart."""
        await self._engine.ask(partial(admin.stop_child, child_id=child_id))

    async def restart_child(self, child_id: str) -> object:
        """Start a stopped child again; to restart a running one, stop it first."""
        return await self._engine.ask(partial(admin.restart_child, child_id=child_id))

    async def delete_child(self, child_id: str) -> None:
        await self._engine.ask(partial(admin.delete_child, child_id=child_id))

    def crash_child(self, child_id: str, error: Exception) -> None:
        """Make a running child fail: it is cancelled, and its end counts as this error."""
        child = admin.find(self._engine.roster, child_id)
        self._engine.post(partial(self._engine.machine.crash, child, error))

    async def stop(self) -> None:
        """Stop all children in reverse order, and the supervisor; returns when that is done."""
        self._engine.post(self._engine.machine.stop)
        await self._engine.ended.wait()

    def hurry(self, shutdown_s: float) -> None:
        """Shorten the shutdown time of every worker below to this, of those already stopping too."""
        _hurry(self._engine, shutdown_s)


def _with_children(node: Node, engine: Engine, now: float) -> Node:
    children = tuple(
        child_node(engine.roster, child, now)
        if (nested := engine.engine_of(child)) is None
        else _with_children(child_node(engine.roster, child, now), nested, now)
        for child in engine.roster.children.values()
    )
    return replace(node, strategy=engine.roster.spec.strategy, children=children)


def _hurry(engine: Engine, shutdown_s: float) -> None:
    engine.post(partial(engine.machine.hurry, shutdown_s))
    for child in engine.roster.children.values():
        if (nested := engine.engine_of(child)) is not None:
            _hurry(nested, shutdown_s)
