"""The stage of one campaign: everything that runs, and the book of faults that rows write.

A fault counts once the row has said that it struck. Its recovery is the time until an order is accepted that was placed
after it was healed; or after it struck, where the system has to get over it while it lasts.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import structlog
import trio

from runtime.audit.marks import Mark
from runtime.chaos.brokers import Brokers
from runtime.chaos.gateway import GatewayProcess
from runtime.chaos.http import Http
from runtime.chaos.instance import Instance
from runtime.chaos.load import Load
from runtime.chaos.row import NotFiredError, Options, Row, Setting

RECOVERY_S = 120.0  # Longer is not recovered: a finding, and the run goes on.

_logger = structlog.get_logger("runtime.chaos")


@dataclass(slots=True)
class Fault:
    """One fault while it lasts; times are monotonic seconds, but for the mark's."""

    name: str
    from_strike: bool
    at_ms: int = 0
    healed_ms: int = 0
    struck_s: float | None = None
    since_s: float = 0.0
    """From when its recovery counts."""

    def struck(self) -> None:
        """It has happened."""
        self.struck_s = trio.current_time()
        self.at_ms = time.time_ns() // 1_000_000


@dataclass(slots=True)
class Stage:
    """What a row is given. `nats_urls` and `gateway_url` are what the instance is told."""

    row: Row
    options: Options
    setting: Setting
    nursery: trio.Nursery
    http: Http
    brokers: Brokers
    gateway: GatewayProcess
    instance: Instance
    load: Load
    rng: Random
    nats_urls: list[str]
    gateway_url: str
    planned: int = 0
    faults: list[Fault] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    not_recovered: int = 0
    findings: list[str] = field(default_factory=list)
    """What must not be, in words: each fails the run."""
    doubts: list[str] = field(default_factory=list)
    """Why the run proves less than it should: with one, it is unknown at best."""
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How often something worth knowing was seen."""
    instances: list[Instance] = field(default_factory=list)
    """All of them, for rows that start a second one."""

    @property
    def directory(self) -> Path:
        return self.options.directory

    @property
    def fired(self) -> int:
        return len(self.faults)

    def marks(self) -> list[Mark]:
        return [
            Mark(at_ms=fault.at_ms, healed_ms=fault.healed_ms, row=self.row.id, name=fault.name)
            for fault in self.faults
        ]

    @asynccontextmanager
    async def fault(self, name: str, *, from_strike: bool = False) -> AsyncIterator[Fault]:
        """One fault: inside, make it happen, say so with `struck`, and heal it. Then wait until orders are accepted.

        `from_strike`: its recovery counts from there, not from the healing.
        """
        fault = Fault(name, from_strike)
        _logger.debug("fault", name=name)
        try:
            yield fault
        except NotFiredError as reason:
            self.notes.append(f"{name} did not happen: {reason}")
            return
        if fault.struck_s is None:
            self.notes.append(f"{name} did not happen")
            return
        fault.healed_ms = time.time_ns() // 1_000_000
        fault.since_s = fault.struck_s if fault.from_strike else trio.current_time()
        self.faults.append(fault)
        await self._recover(fault)

    async def _recover(self, fault: Fault) -> None:
        heard_s = await self.load.wait_accept(fault.since_s, RECOVERY_S)
        if heard_s is not None:
            self.recoveries_s.append(heard_s - fault.since_s)
        elif self.load.is_open:
            self.not_recovered += 1
            self.findings.append(f"no order was accepted within {RECOVERY_S:g} s of: {fault.name}")

    def add_instance(self) -> Instance:
        """Another one, not started yet, kept like the first."""
        first = self.instances[0]
        name = f"instance-{len(self.instances) + 1}"
        own = ("INSTANCE_ID", "NATS_STORE_DIR", "HTTP_BIND", "ADMIN_BIND", "ORDERS_TRACE_FILE")
        environ = {key: text for key, text in first.environ.items() if key not in own}
        instance = Instance(self.directory, self.http, environ, host=first.host, name=name)
        self.instances.append(instance)
        self.nursery.start_soon(instance.keep)
        return instance

    async def pause(self) -> None:
        """Let it be quiet for a while."""
        await trio.sleep(self.rng.uniform(*self.row.pause_s))
