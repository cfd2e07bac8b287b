"""A real nats-server for the tests of a worker, killed and started at will; and a whole shop on the memory log."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from betterproto import Message

from actors import ACTORS, Place, Terms
from actors.actor import Answer, Call, CallAnswered
from actors.inventory import Stock
from messages.generated.orders.v1 import CancelAsked, OrderCreated, OrderItem, StockCounted
from messages.record import Envelope, Letter, RawRecord, decode_letter
from runtime import embedded
from runtime.clock import LogClock
from runtime.gateway import Gateway, Provider
from runtime.gateway_calls import Calls
from runtime.log import SupersededError
from runtime.mailbox import AskFailedError
from runtime.memory import MemoryLog, MemoryStore
from runtime.ports import free_port
from runtime.recall import INTAKE, JOURNALS, LETTERS, Address, Memory, recall
from runtime.shard import Shard, Surroundings
from runtime.shards import Shards
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger
from runtime.tail import Tail
from runtime.tracing import Tracer
from runtime.views import Views
from supervisors import (
    Backoff,
    ChildSpec,
    Report,
    Strategy,
    Supervisor,
    SupervisorSpec,
    child_supervisor,
    supervise,
)


class NatsServer:
    """A nats-server as the embedded one is configured, in the hands of a test."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, extra_config: str = "") -> None:
        if self._process is not None:
            return
        config_file = self._directory / "nats-server.conf"
        config = embedded._config("test", self.port, free_port(), self._directory)
        config_file.write_text(f"{config}{extra_config}\n")
        launcher = [sys.executable, "-I", "-S", "-c", embedded._DIE_WITH_PARENT, str(os.getpid())]
        with (self._directory / "nats-server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*launcher, embedded.server_path(), "-c", str(config_file)],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and probe.recv(4) == b"INFO":
                    return
            time.sleep(0.01)
        raise AssertionError((self._directory / "nats-server.log").read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # Stopping takes a moment.

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def _session_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@pytest.fixture
def nats_server(_session_nats_server: NatsServer) -> Iterator[NatsServer]:
    """The worker's server, running, with whatever earlier tests left in its store."""
    _session_nats_server.start()
    yield _session_nats_server
    _session_nats_server.thaw()


@pytest.fixture
def own_nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A running server that nobody else uses, with an empty store."""
    directory = tmp_path / "nats"
    directory.mkdir()
    server = NatsServer(directory)
    server.start()
    yield server
    server.thaw()
    server.kill()


async def _perform(gateway: Gateway, key: str, call: Call, *, again: bool = False) -> CallAnswered:
    async with trio.open_nursery() as nursery:
        answers: list[CallAnswered] = []

        def tell(answered: CallAnswered) -> None:
            answers.append(answered)
            nursery.cancel_scope.cancel()

        with closing(Calls(nursery, gateway, Tracer(), tell)) as calls:
            calls.issue(key, call, again=again)
            await trio.sleep_forever()
    return answers[0]


@pytest.fixture
def perform() -> Callable[..., Awaitable[CallAnswered]]:
    """Has a gateway perform one call, as a shard of its own does, and waits for the answer."""
    return _perform


RETENTION_MS = 7 * 86_400_000
COUNTS = {"order": 2, "inventory": 2, "payment": 1}


class Process:
    """One process of a shop: the tail, the views and all shards, under the supervisors that they have in earnest."""

    def __init__(self, shop: "Shop", instance_id: str, log: MemoryLog, provider: Provider) -> None:
        self.log, self.shop, self.instance_id = log, shop, instance_id
        self.shards = Shards(shop.terms, shop.counts)
        self.clock = LogClock()
        self.tail = Tail(log, self.shards.routes(), self.clock)
        self.views = Views(log)
        self.reports: list[Report] = []
        self.supervisor: Supervisor
        self.ended = trio.Event()
        self.error: BaseException | None = None
        gateway = Gateway(provider, call_timeout_s=10, pool_size=10, rng=Random(0))
        self._scope = trio.CancelScope()
        self._surroundings = Surroundings(
            log,
            self.tail,
            self.clock,
            gateway,
            self.views,
            Tracer(),
            instance_id,
            shop.retention_ms,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        def adopt(supervisor: Supervisor) -> None:
            self.supervisor = supervisor

        try:
            with self._scope:
                task_status.started()
                await supervise(
                    self._spec(),
                    on_report=self.reports.append,
                    on_open=adopt,
                    rng=Random(0),
                    never_restart=(SupersededError,),
                )
        except Exception as error:  # noqa: BLE001  # What a process dies of is the tests' to judge.
            self.error = error
        finally:
            self.ended.set()

    def _spec(self) -> SupervisorSpec:
        rules: dict[str, Any] = {"intensity": 1000, "period_s": 6000, "backoff": Backoff(0.1, 1.0)}
        shards = tuple(
            ChildSpec(str(address), self.shards.run, (address, lambda: self._surroundings))
            for address in self.shards.addresses()
        )
        children = (
            ChildSpec("tail", self.tail.run),
            ChildSpec("views", self.views.run),
            child_supervisor("actors", SupervisorSpec(shards, **rules)),
        )
        return SupervisorSpec(children, Strategy.REST_FOR_ONE, **rules)

    def shard(self, actor: str, number: int = 0) -> Shard:
        return self.shards.running()[Address(actor, number)]

    async def ask(self, actor: str, key: str, fact: Message) -> Answer:
        return await (await self.shards.ask(actor, key, fact)).wait_answered()

    def crash(self, address: Address) -> None:
        """Let one shard be cancelled where it is, and count that as a failure."""
        self.supervisor.find("actors").crash_child(str(address), RuntimeError("crashed by a test"))

    async def stop(self) -> None:
        """An orderly stop, as SIGTERM asks for."""
        await self.supervisor.stop()
        await self.ended.wait()

    def kill(self) -> None:
        """As kill -9 does: from now on nothing that it does reaches anybody."""
        self.log.disconnect()
        self._scope.cancel()
        self.ended.set()


class Shop:
    """What outlives a process: the broker's disk, the payment provider, and customers who ask again."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.store = MemoryStore()
        self.ledger = Ledger()
        self.terms = Terms()
        self.counts = COUNTS
        self.retention_ms = RETENTION_MS
        self.simulator = Simulator(self.ledger, slow_s=3, now_ms=lambda: 0)
        self.process: Process
        self._nursery = nursery

    async def start(
        self,
        instance_id: str = "i1",
        log: MemoryLog | None = None,
        provider: Provider | None = None,
    ) -> Process:
        """Start a process. It may use the name of an earlier one, as a container does: nothing may rest on names."""
        process = Process(
            self, instance_id, log or MemoryLog(self.store), provider or self.simulator
        )
        self.process = process
        await self._nursery.start(process.run)
        return process

    # --- customers ---

    async def ask(self, actor: str, key: str, fact: Message) -> Answer:
        """Ask whatever process there is until it answers."""
        while True:
            with trio.move_on_after(2):
                try:
                    return await self.process.ask(actor, key, fact)
                except AskFailedError:
                    await trio.sleep(0.05)

    async def count(self, **on_hand: int) -> None:
        for sku, number in on_hand.items():
            await self.ask("inventory", sku, StockCounted(sku=sku, on_hand=number))

    async def place(self, order_id: str, token: str = "tok_ok", **quantities: int) -> Answer:
        return await self.ask("order", order_id, self.order(order_id, token, **quantities))

    async def cancel(self, order_id: str) -> Answer:
        return await self.ask("order", order_id, CancelAsked(order_id=order_id))

    def order(self, order_id: str, token: str = "tok_ok", **quantities: int) -> OrderCreated:
        """An order of so many of each SKU, at 100 each; of one `a` when none is named."""
        quantities = quantities or {"a": 1}
        return OrderCreated(
            order_id=order_id,
            customer_id="c1",
            items=[
                OrderItem(sku=sku, quantity=number, unit_price_minor=100)
                for sku, number in quantities.items()
            ],
            currency="GBP",
            total_minor=100 * sum(quantities.values()),
            payment_token=token,
        )

    async def publish(self, order_id: str, payload: bytes) -> int:
        """Use the open way in, as anybody's producer does."""
        return await MemoryLog(self.store).append(f"{INTAKE}.{order_id}", payload)

    async def wait_running(self) -> None:
        """Look until every shard is taking asks."""
        while True:
            await trio.sleep(0.05)
            if len(self.process.shards.running()) == sum(self.counts.values()):
                return

    async def wait_status(self, order_id: str, *wanted: str) -> dict[str, Any]:
        """Look until an order has one of these statuses in the store; returns its view."""
        while True:
            stored = self.store.views.get(order_id)
            view: dict[str, Any] = msgspec.json.decode(stored) if stored else {}
            if view.get("status") in wanted:
                return view
            await trio.sleep(0.25)

    # --- auditors ---

    def taken_minor(self, order_id: str) -> int:
        """What the provider has taken for an order and not given back."""
        captures = self.ledger.captures(order_id)
        assert len(captures) <= 1
        return sum(one.amount_minor - self.ledger.refunded_minor(one) for one in captures)

    async def recalled(self, actor: str, number: int, *, snapshots: bool = True) -> Memory:
        """What a shard's journal says, with its snapshot or without."""
        log = MemoryLog(self.store)
        if not snapshots:
            log.store = MemoryStore()
            log.store.entries = self.store.entries
            log.store._newest = self.store._newest
        made = ACTORS[actor](self.terms, Place(number, self.counts[actor]))
        return await recall(log, Address(actor, number), made)

    async def stocks(self) -> Mapping[str, Stock]:
        memories = [await self.recalled("inventory", n) for n in range(self.counts["inventory"])]
        stocks = [s for m in memories for s in m.live.values() if isinstance(s, Stock)]
        return {stock.sku: stock for stock in stocks}

    def said(self) -> Counter[tuple[str, str]]:
        """How often each fact about each order stands in the journals."""
        records = [
            RawRecord(e.payload) for e in self.store.entries if e.subject.startswith(JOURNALS)
        ]
        facts = [sent for record in records for sent in record.facts if isinstance(sent, Envelope)]
        return Counter((type(sent.fact).__name__, sent.correlation_id) for sent in facts)

    def records(self, address: Address) -> list[RawRecord]:
        return [RawRecord(e.payload) for e in self.store.entries if e.subject == address.journal]

    def letters(self) -> list[Letter]:
        """The dead letters, once each."""
        stored = [e for e in self.store.entries if e.subject.startswith(LETTERS)]
        return [
            decode_letter(payload)
            for payload in {e.headers["Orders-Letter-Id"]: e.payload for e in stored}.values()
        ]


@asynccontextmanager
async def _open_shop() -> AsyncIterator[Shop]:
    async with trio.open_nursery() as nursery:
        yield Shop(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def open_shop() -> Callable[[], Any]:
    """For tests that open many shops, each in a trio run of its own."""
    return _open_shop


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """A shop with stock and one running process. Ask for `autojump_clock` beside it: that makes its time virtual."""
    async with _open_shop() as shop:
        await shop.start()
        await shop.count(a=100, b=100, c=1)
        yield shop
