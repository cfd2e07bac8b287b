"""For tests of your own actors under failures: a pytest plugin with two fixtures, `stage` and `faults`.

```python
from runtime.testing import faults, stage  # noqa: F401  # Fixtures: in a conftest.py.


async def test_an_order_survives_a_crash_after_the_append(stage, faults, autojump_clock):
    faults.inject("shard.after-append", "crash", actor="order", fact="OrderOpened")
    await stage.ask("order", "o1", an_order("o1"))
    await stage.wait_view("o1", status="confirmed")
```

The stage runs every actor in `ACTORS`, one shard each, as in earnest: under supervisors, with the tail, the views and
the payment gateway; but on the log in memory and the payment simulator within the process, so that with pytest-trio's
`autojump_clock` a test takes milliseconds. `faults.inject` takes what `orders fault inject` takes (`orders fault list`
shows the points), as keyword arguments named like the fields of `runtime.faults.Fault`.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
from betterproto import Message

from actors import ACTORS, Terms
from actors.actor import Answer
from runtime.clock import LogClock
from runtime.faults import Faults, Hands
from runtime.faults.seams import FaultyLog, FaultyProvider
from runtime.gateway import Gateway
from runtime.mailbox import AskFailedError
from runtime.memory import MemoryLog, MemoryStore
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
    Unkillable,
    child_supervisor,
    supervise,
)
from supervisors.watchdog import EXIT_HUNG

RETENTION_MS = 7 * 86_400_000
ASK_AGAIN_S = 0.05
ANSWER_S = 2.0
RULES: Mapping[str, Any] = {"intensity": 1000, "period_s": 6000, "backoff": Backoff(0.1, 1.0)}


class Stage:
    """One process after another on one store. `exits` are the codes of those that a fault has ended."""

    def __init__(self, terms: Terms | None = None) -> None:
        self.store = MemoryStore()
        self.ledger = Ledger()
        self.counts = dict.fromkeys(ACTORS, 1)
        self.reports: list[Report] = []
        self.exits: list[int] = []
        self.faults = Faults(Hands(self.counts, self.crash, exit=self._exit))
        self.shards: Shards
        self.supervisor: Supervisor
        self._terms = terms or Terms()
        self._log: MemoryLog
        self._scope: trio.CancelScope

    async def run(self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Run processes for ever: each next one starts where a fault has ended the one before."""
        while True:
            try:
                with trio.CancelScope() as self._scope:
                    await supervise(
                        self._spec(),
                        on_report=self.reports.append,
                        on_open=self._adopt,
                        task_status=task_status,
                    )
            except Unkillable:
                self.exits.append(EXIT_HUNG)  # In earnest it does not wait until it is let go.
            task_status = trio.TASK_STATUS_IGNORED

    def _spec(self) -> SupervisorSpec:
        self._log = MemoryLog(self.store)
        self.shards = Shards(self._terms, self.counts)
        log, clock = FaultyLog(self._log, self.faults), LogClock()
        tail, views = Tail(log, self.shards.routes(), clock, self.faults), Views(log)
        simulator = Simulator(self.ledger, now_ms=clock.now_ms)
        provider = FaultyProvider(simulator, self.faults)
        gateway = Gateway(provider, call_timeout_s=10, pool_size=10)
        around = Surroundings(
            log, tail, clock, gateway, views, Tracer(), "stage", RETENTION_MS, self.faults
        )
        actors = tuple(
            ChildSpec(str(address), self.shards.run, (address, lambda: around))
            for address in self.shards.addresses()
        )
        children = (
            ChildSpec("tail", tail.run),
            ChildSpec("views", views.run),
            child_supervisor("actors", SupervisorSpec(actors, **RULES)),
        )
        return SupervisorSpec(children, Strategy.REST_FOR_ONE, **RULES)

    def _adopt(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    def _exit(self, code: int) -> None:
        """As the end of a process: from now on nothing that it does reaches anybody."""
        self.exits.append(code)
        self._log.disconnect()
        self._scope.cancel()

    def crash(self, address: Address, error: Exception) -> None:
        """Let the supervisor fail one shard."""
        with suppress(NotFound):  # It is down already.
            self.supervisor.find("actors").crash_child(str(address), error)

    async def ask(self, actor: str, key: str, fact: Message) -> Answer:
        """Ask the shard that owns a key, as a customer does: the same again until there is an answer."""
        while True:
            with trio.move_on_after(ANSWER_S):
                try:
                    return await (await self.shards.ask(actor, key, fact)).wait_answered()
                except AskFailedError:
                    await trio.sleep(ASK_AGAIN_S)

    async def wait_running(self) -> None:
        """Wait until every shard takes asks."""
        while len(self.shards.running()) < len(self.counts):  # noqa: ASYNC110  # Of whichever process.
            await trio.sleep(ASK_AGAIN_S)

    async def wait_view(self, key: str, **wanted: object) -> dict[str, Any]:
        """Wait until the public view stored under a key has these values; returns all of it."""
        while True:
            stored = self.store.views.get(key)
            view: dict[str, Any] = msgspec.json.decode(stored) if stored else {}
            if view and wanted.items() <= view.items():
                return view
            await trio.sleep(ASK_AGAIN_S)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Every actor, running on the log in memory. Ask for `autojump_clock` beside it: that makes its time virtual."""
    stage = Stage()
    async with trio.open_nursery() as nursery:
        await nursery.start(stage.run)
        yield stage
        stage.faults.clear_all()
        nursery.cancel_scope.cancel()


@pytest.fixture
def faults(stage: Stage) -> Faults:
    """The faults of the stage: `faults.inject(point, action, ...)`, `faults.fired`, `faults.clear_all()`."""
    return stage.faults
