"""The demo as a tree of supervised children, and what is heard while it runs.

```
root
|- instance    the tree of runtime.system on a fresh store: nats-server, actors, HTTP on loopback
`- customers   starts demo_load, a process that talks HTTP only, and breaks the instance half-way
```

When the customers have seen all there is to see, the tree is stopped in order, and what they heard is held against
the ledger of the payment provider.
"""

import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import trio

from runtime import demo_faults, demo_load, logs, tracing
from runtime.collector import tune_collector
from runtime.config import load
from runtime.config_variables import Config, LogFormat
from runtime.demo_load import Placed, Seen, Stock, Stocked, Told
from runtime.demo_plan import make_plan
from runtime.demo_screen import Screen
from runtime.demo_verdict import Evidence, Verdict, judge
from runtime.ports import free_port
from runtime.simulator_ledger import Line
from runtime.system import NEVER_RESTART, System
from runtime.tracing import Tracer
from supervisors import (
    AutoShutdown,
    ChildSpec,
    ProcessEnding,
    Report,
    Restart,
    RestartScheduled,
    Supervisor,
    SupervisorSpec,
    child_supervisor,
    run,
)

CHUNK_BYTES = 65_536

_decode = msgspec.json.Decoder(Told).decode


@dataclass(frozen=True, slots=True)
class Options:
    """`store` is where everything is written, a directory that is new or empty; `verbose` shows the logs."""

    orders_max: int
    clients: int
    store: Path
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How the demo ended: with a verdict, or before there was one, and why."""

    code: int
    reason: str
    verdict: Verdict | None = None


def run_demo(options: Options, screen: Screen) -> Ending:
    """Run it as this process, signals included."""
    config = load(environment(options.store), env_file=options.store / "none")
    with ExitStack() as stack:
        log_file = stack.enter_context((options.store / "demo.log").open("w"))
        if options.verbose:
            logs.configure(config.log_level)
        else:
            logs.configure(config.log_level, LogFormat.JSON, log_file)
        tracer = tracing.start(config, console=log_file)
        stack.callback(tracer.close)
        demo = _Demo(options, config, tracer, screen)
        code = run(
            demo.spec(),
            on_report=demo.on_report,
            on_open=demo.adopt,
            never_restart=NEVER_RESTART,
        )
    if code or not demo.is_finished:
        return Ending(code, demo.end_reason)
    demo.evidence.ledger = _read_ledger(config.simulator_ledger)
    return Ending(code, demo.end_reason, judge(demo.evidence))


def environment(store: Path) -> dict[str, str]:
    """The demo's own configuration, whatever the caller's is; only where traces go is inherited."""
    traces = {name: text for name, text in os.environ.items() if name.startswith("OTEL_")}
    if "ORDERS_TRACE_FILE" in os.environ:
        traces["ORDERS_TRACE_FILE"] = os.environ["ORDERS_TRACE_FILE"]
    http, admin = free_port(), free_port()
    return traces | {
        "NATS_STORE_DIR": str(store),
        "HTTP_BIND": f"127.0.0.1:{http}",
        "ADMIN_BIND": f"127.0.0.1:{admin}",
        # One order in a hundred is charged without an answer, and holds a call until this is over.
        "PAYMENT_CALL_TIMEOUT": "1s",
        "WORKER_POOL_SIZE": "32",
    }


class CustomersFailedError(Exception):
    """The process that places the orders failed: the end of what it had to say."""


class _Demo:
    """The tree of the demo, and what is heard while it runs."""

    def __init__(self, options: Options, config: Config, tracer: Tracer, screen: Screen) -> None:
        self.evidence = Evidence(make_plan(options.orders_max))
        self.is_finished = False
        self.end_reason = ""
        self._options, self._config, self._screen = options, config, screen
        self._system = System(config, tracer)
        tune_collector()
        self._root: Supervisor | None = None
        self._half_way = trio.Event()

    def spec(self) -> SupervisorSpec:
        """No restart on this level: an instance that gives up ends the demo, and that is its result."""
        instance = child_supervisor("instance", self._system.spec())
        customers = ChildSpec(
            "customers", self._attend, restart=Restart.TRANSIENT, significant=True
        )
        return SupervisorSpec(
            (instance, customers), intensity=0, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT
        )

    def adopt(self, root: Supervisor) -> None:
        self._root = root

    def on_report(self, report: Report) -> None:
        self._system.on_report(report)
        match report:
            case RestartScheduled(path=path):
                self.evidence.restarts[path.rpartition("/")[2]] += 1
            case ProcessEnding(reason=reason, chain=chain):
                self.end_reason = "\n  because of ".join((reason, *chain[1:]))

    # --- the customers, and what happens to the instance meanwhile ---

    async def _attend(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        assert self._root is not None
        self._system.adopt(self._root.find("instance"))
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._break_half_way)
            await self._hear_customers()
        self.is_finished = True

    async def _hear_customers(self) -> None:
        config, options = self._config, self._options
        command = demo_load.command(
            str(config.http_bind), str(config.admin_bind), options.orders_max, options.clients
        )
        with (options.store / "customers.log").open("w+b") as log:
            async with trio.open_nursery() as nursery:
                start = partial(
                    trio.run_process,
                    command,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    check=False,
                    start_new_session=True,  # A Ctrl-C is for us; we then end it.
                )
                process = await nursery.start(start)
                async for line in _lines(process.stdout):
                    self._hear(_decode(line))
            if process.returncode:
                log.seek(0)
                raise CustomersFailedError(log.read().decode(errors="replace")[-1000:])

    def _hear(self, told: Told) -> None:
        evidence, screen = self.evidence, self._screen
        match told:
            case Stocked(products=products, units=units):
                screen.say(f"stocked {units:,} units of {products:,} products")
                screen.begin("placing orders", len(evidence.plan.placings))
            case Placed():
                evidence.journal.append(told)
                screen.advance()
                if len(evidence.journal) == len(evidence.plan.placings) // 2:
                    self._half_way.set()
                if len(evidence.journal) == len(evidence.plan.placings):
                    screen.begin("looking at each again", len(evidence.journal))
            case Seen():
                evidence.seen.append(told)
                screen.advance()
            case Stock(levels=levels):
                evidence.stock = levels

    async def _break_half_way(self) -> None:
        await self._half_way.wait()
        screen, system = self._screen, self._system
        first_s = time.time()
        for actor, shards in system.shards.counts.items():
            screen.say(f"crashing {actor}, all {shards} shards")
            took_s = await demo_faults.crash(system, actor)
            screen.say(f"{actor} is back after {took_s:.2f} s")
        screen.say("killing the nats-server (SIGKILL)")
        took_s = await demo_faults.kill_broker(system)
        screen.say(f"ready again after {took_s:.2f} s")
        self.evidence.disturbed_s = (first_s, time.time())


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    rest = b""
    while chunk := await stream.receive_some(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _read_ledger(path: Path) -> list[Line]:
    """The lines as they stand in the file: the provider's own memory of them would hide a repeated one."""
    return msgspec.json.Decoder(Line).decode_lines(path.read_bytes())
