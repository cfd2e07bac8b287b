"""The world: what outlives a process (the broker's disk, the provider's ledger), and processes as they run in earnest.

A process is the real shards, tail, views, desk and gateway under the real supervisors, wired like `runtime.system`;
only the broker is the one in memory, the provider is called without HTTP, and time is virtual.
"""

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final

import trio

from actors import Terms
from runtime.clock import LogClock
from runtime.desk import Desk
from runtime.explore.nemesis import Nemesis
from runtime.explore.schedule import Schedule
from runtime.explore.wires import Errand, Gate, ProviderLine, WiredLog, WiredProvider
from runtime.faults import Faults, Hands, InjectedFaultError
from runtime.gateway import Gateway
from runtime.log import BrokerLostError, FencedError, SupersededError
from runtime.memory import EPOCH_MS, MemoryStore
from runtime.recall import Address
from runtime.shard import Surroundings
from runtime.shards import Shards
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger
from runtime.tail import Tail
from runtime.tracing import Tracer
from runtime.views import Views
from supervisors import (
    Backoff,
    ChildSpec,
    NotFound,
    Report,
    Strategy,
    Supervisor,
    SupervisorSpec,
    child_supervisor,
    supervise,
)
from supervisors.errors import SupervisionFault, leaves
from supervisors.reports import ErrorReport, GaveUp

RETENTION_MS: Final = 7 * 86_400_000
CALL_TIMEOUT_S: Final = 10.0
LINK_FALLS_S: Final = 1.0
RULES: Final[Mapping[str, Any]] = {"intensity": 10, "period_s": 60.0, "backoff": Backoff(0.1, 5.0)}


class Broken(Exception):  # noqa: N818  # What happened to whoever fails of it.
    """A shard, the tail or the views failed because the schedule says so."""


EXPECTED: Final = (
    BrokerLostError,
    FencedError,
    Broken,
    InjectedFaultError,
    SupervisionFault,
    trio.Cancelled,
)
"""What parts of a process may fail of when faults are about."""


class World:
    """Everything in one run that a process can lose, but not end."""

    def __init__(self, schedule: Schedule, nursery: trio.Nursery) -> None:
        conditions = schedule.conditions
        self.schedule = schedule
        self.dice = Random(f"world {schedule.seed}")  # noqa: S311  # It has to repeat.
        self.nemesis = Nemesis(schedule.faults)
        self.nursery = nursery
        self.latency_s = conditions.latency_ms / 1000
        self.clock_ahead_ms = 0
        self.store = MemoryStore(now_ms=self.now_ms)
        self.broker = Gate(Errand.run)
        self.ledger = Ledger()
        self.line = ProviderLine(Simulator(self.ledger, slow_s=3, now_ms=lambda: 0))
        self.counts = dict(zip(("order", "inventory", "payment"), conditions.shards, strict=True))
        self.terms = Terms(
            conditions.reservation_ttl_ms,
            conditions.payment_deadline_ms,
            int(CALL_TIMEOUT_S * 2 * 1000),
        )
        self.processes: list[Process] = []
        self.surprises: list[str] = []
        """Errors that no fault explains."""

    def now_ms(self) -> int:
        """The broker's clock."""
        return EPOCH_MS + round(trio.current_time() * 1000) + self.clock_ahead_ms

    @property
    def newest(self) -> "Process":
        return self.processes[-1]

    @property
    def alive(self) -> list["Process"]:
        return [process for process in self.processes if not process.ended.is_set()]


class Process:
    """One process of the shop."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"p{number}"
        self.log = WiredLog(world, world.store)
        self.provider = WiredProvider(world, world.line)
        self.shards = Shards(world.terms, world.counts)
        self.faults = Faults(Hands(world.counts, self._crash_shard))
        self.ended = trio.Event()
        self.error: BaseException | None = None
        self._rng = Random(world.dice.getrandbits(64))  # noqa: S311  # It has to repeat.
        self._scope = trio.CancelScope()
        self._supervisor: Supervisor | None = None
        tracer = Tracer(rng=self._rng)
        clock = LogClock()
        self._tail = Tail(self.log, self.shards.routes(), clock)
        self._views = Views(self.log)
        gateway = Gateway(self.provider, call_timeout_s=CALL_TIMEOUT_S, pool_size=4, rng=self._rng)
        self._surroundings = Surroundings(
            self.log,
            self._tail,
            clock,
            gateway,
            self._views,
            tracer,
            self.name,
            RETENTION_MS,
            self.faults,
        )
        self.desk = Desk(
            self.shards,
            self._views,
            self.log,
            tracer,
            instance_id=self.name,
            connected=lambda: self.log.connected,
            describe_tree=dict,
        )

    # --- its life ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until stopped, killed, superseded or given up."""
        try:
            with self._scope:
                task_status.started()
                await supervise(
                    self._spec(),
                    on_report=self._hear,
                    on_open=self._adopt,
                    rng=self._rng,
                    never_restart=(SupersededError,),
                )
        except Exception as error:  # noqa: BLE001  # What a process dies of is judged afterwards.
            self.error = error
        finally:
            self.ended.set()

    async def stop(self) -> None:
        """As SIGTERM asks for."""
        if self._supervisor is not None:
            await self._supervisor.stop()
        await self.ended.wait()

    def kill(self) -> None:
        """As kill -9 does: from now on nothing that it does reaches anybody."""
        self.log.is_cut = self.provider.is_cut = True
        self.log.disconnect()
        self._scope.cancel()
        self.ended.set()

    def crash(self, target: str) -> None:
        """Let one of its parts be cancelled where it is, and count that as a failure."""
        if self._supervisor is None:
            return
        try:
            parent = self._supervisor.find("core" if "." not in target else "core/actors")
            parent.crash_child(target, Broken(f"{target} was crashed"))
        except NotFound:
            pass  # It is down already.

    @property
    def is_quiet(self) -> bool:
        """All there is has been delivered; every shard runs, has heard it, and waits for nobody."""
        if self._tail.position < len(self.world.store.entries):
            return False
        running = self.shards.running()
        vitals = [shard.vitals for shard in running.values()]
        return len(running) == sum(self.world.counts.values()) and all(
            one.is_idle and not one.waiting and not one.calls for one in vitals
        )

    def _crash_shard(self, address: Address, _: Exception) -> None:
        self.crash(str(address))

    # --- its tree, as `runtime.system` has it ---

    def _spec(self) -> SupervisorSpec:
        shards = tuple(
            ChildSpec(
                str(address),
                self._run_on_link,
                (self.shards.run, address, lambda: self._surroundings),
                start_timeout_s=60,
                shutdown_s=10,
            )
            for address in self.shards.addresses()
        )
        children = (
            ChildSpec("link", self._hold_link, start_timeout_s=float("inf")),
            ChildSpec("tail", self._run_on_link, (self._tail.run,)),
            ChildSpec("views", self._run_on_link, (self._views.run,)),
            child_supervisor("actors", SupervisorSpec(shards, **RULES)),
        )
        core = SupervisorSpec(children, Strategy.REST_FOR_ONE, **RULES)
        return SupervisorSpec((child_supervisor("core", core),), **RULES)

    async def _hold_link(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await self.log.wait_connected()
        task_status.started()
        await self.log.wait_disconnected()
        raise BrokerLostError("the connection to the broker is gone")

    async def _run_on_link(
        self,
        run: Callable[..., Awaitable[None]],
        *args: object,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            await run(*args, task_status=task_status)
        except* BrokerLostError:
            if not self.log.connected:
                await trio.sleep(LINK_FALLS_S)
            raise

    def _adopt(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def _hear(self, report: Report) -> None:
        if isinstance(report, GaveUp):
            self.world.nemesis.seen["a supervisor gave up, and the process with it"] += 1
        elif isinstance(report, ErrorReport):
            for leaf in leaves(report.error):
                self._hear_of(report.path, leaf)

    def _hear_of(self, path: str, leaf: BaseException) -> None:
        if isinstance(leaf, SupersededError):
            self.world.nemesis.seen["a process was superseded by another"] += 1
        elif not isinstance(leaf, EXPECTED):
            self.world.surprises.append(f"{self.name} {path}: {type(leaf).__name__}: {leaf}")
