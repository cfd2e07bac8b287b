"""The wiring: every part of one instance, made once and passed on, and the tree that keeps it running.

```
root (one_for_one)
|- nats-server        the embedded broker, where none is configured
|- bridge             the connection to the broker; renews itself
|- gateway            the client of the payment provider, and the built-in provider where none is configured
|- http, admin        answer from the start, if only with 503
|- core (rest_for_one)
|  |- link            lives as long as one connection; everything below starts anew with the next
|  |- tail            reads the log for all shards
|  |- views           writes what the public sees
|  `- actors (one_for_one)
|     |- payment      one_for_one over its shards: payment.0, payment.1, ...
|     |- inventory
|     `- order        last, so that nothing is accepted before all that it leads to can be done
`- door               opens when all of that has started; on a stop it closes first
```
"""

import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from typing import Any

import structlog
import trio
from prometheus_client import CollectorRegistry

from actors import ACTORS, Terms
from runtime import vitals
from runtime.bridge import Address as BrokerAddress
from runtime.clock import LogClock
from runtime.config_variables import SHARDS, Config
from runtime.desk import Desk
from runtime.edge.admin import admin_app
from runtime.edge.limits import Limits
from runtime.edge.public import public_app
from runtime.edge.server import ListenError, serve
from runtime.embedded import EmbeddedServer
from runtime.faults import Faults, Hands
from runtime.faults.metrics import FaultMetrics
from runtime.faults.seams import (
    breakable_bridge,
    breakable_desk,
    breakable_log,
    breakable_provider,
)
from runtime.footing import Footing
from runtime.gateway import Gateway, HttpProvider, Provider
from runtime.gateway_line import Line
from runtime.jetstream import JetStreamLog, Layout
from runtime.log import BrokerConfigError, SupersededError
from runtime.logs import log_report
from runtime.metrics import Metrics
from runtime.recall import Address
from runtime.shard import Surroundings
from runtime.shards import Shards
from runtime.simulator import Simulator
from runtime.simulator_http import serve as serve_simulator
from runtime.simulator_ledger import LedgerError, open_ledger
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
)

NEVER_RESTART = (BrokerConfigError, SupersededError, ListenError, LedgerError)
"""Faults that a restart does not cure: the process ends with 78 and says why."""

SHARD_STOP_S = 6.0  # An append under way. One that hangs has ended the process within 15 s.
SETTLE_CALLS = 2  # Call timeouts after which a provider's silence about a charge is believed.

_logger = structlog.get_logger("runtime.system")


class System:
    """One instance. `spec` is what a supervisor runs; `provider` replaces the payment gateway over HTTP."""

    def __init__(
        self, config: Config, tracer: Tracer | None = None, provider: Provider | None = None
    ) -> None:
        self.config = config
        self.tracer = tracer or Tracer()
        self.embedded = EmbeddedServer(config.nats_store_dir) if config.embedded else None
        self.injector = self._open_injector() if config.faults else None
        address = broker_address(config, self.embedded)
        self.bridge = breakable_bridge(address, config.instance_id, self.injector)
        stream = JetStreamLog(self.bridge)
        self.log = breakable_log(stream, self.injector)
        self.clock = LogClock()
        self.shards = Shards(terms_of(config), shard_counts(config))
        layout = Layout(config.retention_s, config.stream_replicas, self.shards.counts)
        self.footing = Footing(self.bridge, stream, layout, accept_loss=config.accept_loss)
        self.tail = Tail(self.log, self.shards.routes(), self.clock, self.injector)
        self.views = Views(self.log, renew_s=config.retention_s / 4)
        # Two processes may have been given one name.
        self._process_id = f"{config.instance_id}.{secrets.token_hex(3)}"
        self.desk = Desk(
            self.shards,
            self.views,
            self.log,
            self.tracer,
            instance_id=self._process_id,
            connected=lambda: self.bridge.connected,
            describe_tree=self.describe_tree,
            unready=self.unready,
        )
        self.metrics = Metrics(self)
        self.root: Supervisor | None = None
        self._provider = provider
        self._line = Line()
        self._gateway = Gateway(
            breakable_provider(self._line, self.injector),
            call_timeout_s=config.payment_call_timeout_s,
            pool_size=config.worker_pool_size,
        )
        self._public = trio.CancelScope()
        self._public_closed = trio.Event()
        self._public_closed.set()  # Until it is served, which it may never be.

    def _open_injector(self) -> Faults:
        """With FAULTS=on: what makes this instance fail on request."""
        embedded = self.embedded
        broker_pid = None if embedded is None else lambda: embedded.pid
        hands = Hands(shard_counts(self.config), self._crash, broker_pid)
        return Faults(hands, self.tracer)

    def _crash(self, address: Address, error: Exception) -> None:
        assert self.root is not None  # Whoever reached a point runs below it.
        with suppress(NotFound):  # It is down already.
            self.root.find(f"core/actors/{address.actor}").crash_child(str(address), error)

    # --- the tree ---

    def spec(self, *, with_http: bool = True) -> SupervisorSpec:
        """The whole instance as a specification."""
        broker = (
            ChildSpec("nats-server", self.embedded.run, start_timeout_s=90)
            if self.embedded
            else None
        )
        http = ChildSpec("http", self._serve_public, shutdown_s=7)
        admin = ChildSpec("admin", self._serve_admin, shutdown_s=7)
        children = (
            *((broker,) if broker else ()),
            ChildSpec("bridge", self.bridge.run),
            ChildSpec("gateway", self._run_gateway),
            *((http, admin) if with_http else ()),
            child_supervisor("core", self._core()),
            ChildSpec("door", self._keep_door, shutdown_s=7),
        )
        return self._supervisor(Strategy.ONE_FOR_ONE, children)

    def _core(self) -> SupervisorSpec:
        # Started the other way round than orders travel: else, started again and again, we would only ever accept.
        actors = [
            child_supervisor(actor, self._shards_of(actor))
            for actor in reversed(self.shards.counts)
        ]
        children = (
            ChildSpec("link", self.footing.hold, start_timeout_s=float("inf")),
            ChildSpec("tail", self.footing.run_on, (self.tail.run,)),
            ChildSpec("views", self.footing.run_on, (self.views.run,)),
            child_supervisor("actors", self._supervisor(Strategy.ONE_FOR_ONE, tuple(actors))),
        )
        return self._supervisor(Strategy.REST_FOR_ONE, children)

    def _shards_of(self, actor: str) -> SupervisorSpec:
        children = tuple(
            ChildSpec(
                str(address),
                self.footing.run_on,
                (self.shards.run, address, self._surroundings),
                start_timeout_s=float("inf"),  # The footing bounds each try.
                shutdown_s=SHARD_STOP_S,
            )
            for address in self.shards.addresses()
            if address.actor == actor
        )
        return self._supervisor(Strategy.ONE_FOR_ONE, children)

    def _supervisor(self, strategy: Strategy, children: tuple[ChildSpec, ...]) -> SupervisorSpec:
        config = self.config
        return SupervisorSpec(
            children=children,
            strategy=strategy,
            intensity=config.restart_intensity,
            period_s=config.restart_period_s,
            backoff=Backoff(config.restart_backoff_min_s, config.restart_backoff_max_s),
        )

    def adopt(self, root: Supervisor) -> None:
        """Keep the handle of the running tree."""
        self.root = root

    def on_report(self, report: Report) -> None:
        """Let a supervision report be seen in logs, traces and metrics."""
        log_report(report)
        self.tracer.span_report(report)
        self.metrics.count(report)

    # --- the children that are not modules of their own ---

    async def _run_gateway(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with AsyncExitStack() as stack:
            client = self._provider
            if client is None:
                url = self.config.payment_gateway_url or await self._simulate_provider(stack)
                pool_size = self.config.worker_pool_size
                http = HttpProvider(url, connections_max=pool_size)
                client = await stack.enter_async_context(aclosing(http))
            stack.enter_context(self._line.leading_to(client))
            task_status.started()
            await trio.sleep_forever()

    async def _simulate_provider(self, stack: AsyncExitStack) -> str:
        """Start the built-in payment provider; returns its URL."""
        ledger = stack.enter_context(open_ledger(self.config.simulator_ledger))
        nursery = await stack.enter_async_context(trio.open_nursery())
        url: str = await nursery.start(partial(serve_simulator, Simulator(ledger)))
        _logger.info("payment_simulator_serving", url=url)
        return url

    async def _keep_door(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be ready while everything runs. Started last and stopped first: no request meets a half-stopped instance."""
        self.desk.open()
        task_status.started()
        _logger.info("ready", http=str(self.config.http_bind))
        try:
            await trio.sleep_forever()
        finally:
            self.desk.close()
            self._public.cancel()
            with trio.move_on_after(6, shield=True):
                await self._public_closed.wait()

    async def _serve_public(
        self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self._public, self._public_closed = trio.CancelScope(), trio.Event()
        try:
            with self._public:
                desk = breakable_desk(self.desk, self.injector)
                tenant_header, lines_max = self.config.tenant_header, self.config.order_lines_max
                app = public_app(desk, tenant_header=tenant_header, lines_max=lines_max)
                limits = Limits.of_lines(lines_max)
                bind = str(self.config.http_bind)
                await serve(app, bind, limits=limits, task_status=task_status)
        finally:
            self._public_closed.set()

    async def _serve_admin(
        self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        app = admin_app(self.desk, registry=self._registry(), faults=self.injector)
        await serve(app, str(self.config.admin_bind), task_status=task_status)

    # --- what is passed on ---

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            self.log,
            self.tail,
            self.clock,
            self._gateway,
            self.views,
            self.tracer,
            self._process_id,
            int(self.config.retention_s * 1000),
            self.injector,
            self.config.accept_loss,
        )

    def _registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self.metrics)
        if self.injector is not None:
            registry.register(FaultMetrics(self.injector))
        return registry

    def describe_tree(self) -> Any:
        """The supervision tree with what each shard is busy with, ready for JSON."""
        if self.root is None:
            return {}
        return vitals.describe(self.root.snapshot(), self._busy(), trio.current_time())

    def unready(self) -> tuple[str, ...]:
        """Why this instance is not ready, as its tree has it."""
        if self.root is None:
            return ()  # The desk knows that nothing has started.
        amiss = vitals.unready(self.root.snapshot(), self._busy(), trio.current_time())
        return (*self.footing.reasons, *amiss)

    def _busy(self) -> vitals.Busy:
        shards = {str(address): shard.vitals for address, shard in self.shards.running().items()}
        newest = max(shards.values(), key=lambda shard: shard.seq, default=None)
        return {**shards, "tail": self.tail.vitals(newest), "views": self.views.vitals}


def terms_of(config: Config) -> Terms:
    """The business terms of a configuration."""
    return Terms(
        reservation_ttl_ms=int(config.reservation_ttl_s * 1000),
        payment_deadline_ms=int(config.payment_deadline_s * 1000),
        payment_settle_ms=int(config.payment_call_timeout_s * SETTLE_CALLS * 1000),
        order_lines_max=config.order_lines_max,
    )


def shard_counts(config: Config) -> Mapping[str, int]:
    """How many shards each actor has; one without a variable of its own has the usual number."""
    return {actor: getattr(config, f"{actor}_shards", SHARDS) for actor in ACTORS}


def broker_address(config: Config, embedded: EmbeddedServer | None) -> BrokerAddress:
    """Where the broker of a configuration is, which may be a server of our own."""
    if embedded is not None:
        return BrokerAddress([embedded.url])
    return BrokerAddress(
        list(config.nats_urls or ()),
        config.nats_creds_file,
        config.nats_tls_ca_file,
        config.nats_tls_cert_file,
        config.nats_tls_key_file,
    )
