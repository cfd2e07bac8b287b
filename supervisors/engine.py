"""The running supervisor: one task that hears what happened, asks the machine, and starts and cancels tasks.

Every child runs in its own guard, which lets nothing out: neither can a child's exception reach its siblings,
nor a cancellation from outside reach the children before the machine has decided in which order they go.
Everything that happens is put into one inbox and handled by one task, one thing after the other.
"""

import math
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import trio

from supervisors import admin, reports
from supervisors.child import Child
from supervisors.errors import (
    AdminFault,
    ConfigError,
    MemoryExhausted,
    SupervisorStopped,
    Unkillable,
    brief,
    leaves,
)
from supervisors.exits import Exit, ExitKind, classify
from supervisors.machine import Machine
from supervisors.roster import ROOT, Abandon, Cancel, Launch, Mode, Ready, Roster, Tell
from supervisors.spec import IGNORE, SupervisorSpec

Event = Callable[[float], None]  # Called with the time, by the engine's task alone.

MEMORY_ERRORS_APART_S = 60.0  # A second MemoryError sooner than this is not one child's bad luck.


@dataclass(slots=True)
class MemoryWatch:
    """When a child of this process last ran out of memory."""

    last_at: float = -math.inf

    def is_second(self, now: float) -> bool:
        last_at, self.last_at = self.last_at, now
        return now - last_at <= MEMORY_ERRORS_APART_S


def _nothing(*_: object) -> None:
    """Heard by nobody."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a supervisor inherits from the one above it."""

    path: str = ROOT
    on_report: reports.OnReport = _nothing
    rng: Random = field(default_factory=Random)
    never_restart: tuple[type[BaseException], ...] = ()
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    adopt: Callable[["Engine"], None] = (
        _nothing  # Told who runs here, before its first child starts.
    )
    abandon: Callable[[], None] = (
        _nothing  # Told that a task in here can only end with the process.
    )


class ChildStatus:
    """The `task_status` of a supervised child: trio's, and a heartbeat."""

    def __init__(self, surroundings: Surroundings, on_started: Callable[[object], None]) -> None:
        self.scope = trio.CancelScope()
        self.last_beat = -math.inf
        self.task: trio.lowlevel.Task | None = None
        self.engine: Engine | None = None  # Where the child is a supervisor.
        self._surroundings = surroundings
        self._on_started = on_started
        self._is_started = False

    @property
    def path(self) -> str:
        return self._surroundings.path

    @property
    def surroundings(self) -> Surroundings:
        """What a supervisor that runs as this child inherits."""
        # Made when asked for: a status that held itself would live, arguments and all, until the next gc.
        return replace(self._surroundings, adopt=self._adopt)

    def started(self, value: object = None) -> None:
        if self._is_started:
            raise RuntimeError("called 'started' twice on the same task status")
        self._is_started = True
        self._on_started(value)

    def beat(self) -> None:
        """Show that the child still makes progress; wanted where its spec has `heartbeat_s`."""
        self.last_beat = trio.current_time()

    def _adopt(self, engine: "Engine") -> None:
        self.engine = engine


class Waiter:
    """An answer that a task of the caller waits for."""

    def __init__(self) -> None:
        self._answered = trio.Event()
        self._value: object = None
        self._error: Exception | None = None

    def give(self, value: object) -> None:
        self._value = value
        self._answered.set()

    def refuse(self, error: Exception) -> None:
        self._error = error
        self._answered.set()

    async def wait(self) -> object:
        await self._answered.wait()
        if self._error is not None:
            raise self._error
        return self._value


class Engine:
    def __init__(self, spec: SupervisorSpec, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.roster = Roster(spec, surroundings.path, trio.current_time())
        self.machine = Machine(self.roster, surroundings.rng)
        self.ended = trio.Event()
        self._waiters: set[Waiter] = set()
        # Without a limit, yet bounded: two events for each running child, and one for each waiting caller.
        self._send, self._inbox = trio.open_memory_channel[Event](math.inf)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run the children until stopped, cancelled or given up; raises what the supervisor ends with."""
        self.surroundings.adopt(self)
        verdict: BaseException | None = None
        async with trio.open_nursery() as outside:
            outside.start_soon(self._notice_cancellation)
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    try:
                        verdict = await self._serve(nursery, on_ready)
                    except BaseException as bug:  # noqa: BLE001 - raised below, outside of the nurseries
                        verdict = bug
                        nursery.cancel_scope.cancel("the supervisor itself failed")
            outside.cancel_scope.cancel("all children have ended")
        self._close()
        if isinstance(verdict, MemoryError):
            raise MemoryExhausted("the supervisor ran out of memory") from verdict
        if verdict is not None:
            raise verdict
        await trio.lowlevel.checkpoint_if_cancelled()

    def post(self, event: Event) -> None:
        # After the end nobody listens, and nothing that happens then matters.
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            self._send.send_nowait(event)

    async def ask(self, command: Callable[[Roster, Waiter, float], None]) -> object:
        """Have a command of the administration carried out, and wait for its answer."""
        if self.ended.is_set():
            raise SupervisorStopped(self.roster.path)
        waiter = Waiter()
        self._waiters.add(waiter)
        self.post(partial(self._obey, command, waiter))
        try:
            return await waiter.wait()
        except trio.Cancelled:
            self.post(partial(admin.withdraw, self.roster, waiter))
            raise
        finally:
            self._waiters.discard(waiter)

    def engine_of(self, child: Child) -> "Engine | None":
        """The supervisor that runs as this child, if it is one."""
        return child.life.engine if isinstance(child.life, ChildStatus) else None

    async def _serve(
        self, nursery: trio.Nursery, on_ready: Callable[[], None]
    ) -> BaseException | None:
        self.machine.begin(trio.current_time())
        self._carry_out(nursery, on_ready)
        while self.roster.mode is not Mode.ENDED:
            try:
                with trio.move_on_at(self.roster.next_deadline()):
                    (await self._inbox.receive())(trio.current_time())
            except KeyboardInterrupt as interrupt:
                self.machine.interrupt(interrupt, trio.current_time())
            self._carry_out(nursery, on_ready)
            self._catch_up(nursery, on_ready)
        self._tell_end()
        if isinstance(self.roster.verdict, Unkillable):
            self.surroundings.abandon()
        return self.roster.verdict

    def _catch_up(self, nursery: trio.Nursery, on_ready: Callable[[], None]) -> None:
        # What has been heard goes before what has become due: a stop that comes in the same tick as the
        # end of a back-off wins.
        while self._inbox.statistics().current_buffer_used:
            self._inbox.receive_nowait()(trio.current_time())
            self._carry_out(nursery, on_ready)
        self.machine.tick(trio.current_time())
        self._carry_out(nursery, on_ready)

    def _carry_out(self, nursery: trio.Nursery, on_ready: Callable[[], None]) -> None:
        while orders := self.roster.take_orders():
            for order in orders:
                match order:
                    case Launch(child):
                        self._launch(child, nursery)
                    case Cancel(child):
                        self._status(child).scope.cancel("asked to by its supervisor")
                    case Abandon(child):
                        self._abandon(child)
                    case Ready():
                        on_ready()
                    case Tell(report):
                        self._tell(report)

    def _launch(self, child: Child, nursery: trio.Nursery) -> None:
        path = self.roster.path_of(child)
        surroundings = replace(
            self.surroundings,
            path=path,
            abandon=lambda: self.post(partial(self.machine.lost, child)),
        )
        status = ChildStatus(
            surroundings, lambda value: self.post(partial(self.machine.started, child, value))
        )
        child.life = status
        nursery.start_soon(self._guard, child, status, name=path)

    async def _guard(self, child: Child, status: ChildStatus) -> None:
        """Run a child's life; whatever comes out of it is news for the machine, and stops here."""
        status.task = trio.lowlevel.current_task()
        returned, error = await _outcome(child, status)
        cancelled = status.scope.cancel_called
        self.post(partial(self._exited, child, returned, error, cancelled))

    def _exited(
        self,
        child: Child,
        returned: object,
        error: BaseException | None,
        cancelled: bool,
        now: float,
    ) -> None:
        exit_ = classify(error, cancelled=cancelled, never_restart=self.surroundings.never_restart)
        if returned is IGNORE:
            exit_ = Exit(ExitKind.IGNORED)
        if error is not None and any(isinstance(leaf, MemoryError) for leaf in leaves(error)):
            exit_ = self._out_of_memory(exit_, now)
        self.machine.exited(child, exit_, now)

    def _out_of_memory(self, exit_: Exit, now: float) -> Exit:
        if not self.surroundings.memory.is_second(now):
            return exit_
        exhausted = MemoryExhausted("a second MemoryError within a minute")
        exhausted.__cause__ = exit_.error
        return Exit(ExitKind.FATAL, exhausted)

    def _abandon(self, child: Child) -> None:
        now = trio.current_time()
        task = self._status(child).task
        frames = task.iter_await_frames() if task is not None else ()
        stack = "".join(traceback.StackSummary.extract(frames).format())
        path = self.roster.path_of(child)
        self._tell(reports.ChildUnkillable(path=path, at=now, stack=stack))
        self.machine.lost(child, now)

    def _obey(
        self, command: Callable[[Roster, Waiter, float], None], waiter: Waiter, now: float
    ) -> None:
        try:
            command(self.roster, waiter, now)
        except (AdminFault, ConfigError) as refusal:
            waiter.refuse(refusal)

    async def _notice_cancellation(self) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.post(self.machine.stop)  # Raised again by run(), when the children have ended.

    def _close(self) -> None:
        self._send.close()
        self._inbox.close()
        self.ended.set()
        for waiter in self._waiters:
            waiter.refuse(SupervisorStopped(self.roster.path))

    def _tell_end(self) -> None:
        verdict = self.roster.verdict
        reason = "stopped" if verdict is None else brief(verdict)
        now = trio.current_time()
        self._tell(reports.SupervisorEnded(path=self.roster.path, at=now, reason=reason))

    def _tell(self, report: reports.Report) -> None:
        reports.tell(self.surroundings.on_report, report)

    @staticmethod
    def _status(child: Child) -> ChildStatus:
        assert isinstance(child.life, ChildStatus)
        return child.life


async def _outcome(child: Child, status: ChildStatus) -> tuple[object, BaseException | None]:
    try:
        with status.scope:
            return await child.spec.start(*child.spec.args, task_status=status), None
    except BaseException as error:  # noqa: BLE001 - however a child ends, its supervisor judges it
        # Not kept in a local variable, which would make a cycle out of the traceback and its frame.
        return None, error
    return None, None
