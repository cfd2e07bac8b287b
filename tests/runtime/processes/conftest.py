"""Real `orders run` processes, killed and started at will; a client with a journal; and an audit of what they say."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from runtime import embedded
from runtime.ports import free_port
from runtime.simulator import Simulator
from runtime.simulator_http import serve
from runtime.simulator_ledger import Ledger

TERMINAL = {"confirmed", "rejected", "cancelled"}
RETRY_S = 0.25
PATIENCE_S = 4.0  # Above every bound that an answer has to keep, so that a hang is seen as one.

# How the payment provider of each order behaves. One that times out after charging costs a call's time-out.
TOKENS = ["tok_ok"] * 12 + [
    "tok_declined",
    "tok_declined",
    "tok_flaky",
    "tok_slow",
    "tok_timeout_after_charge",
    "tok_error_after_charge",
]
STOCK = {f"hat-{n}": 100_000 for n in range(12)} | {"scarce": 60}


class Instance:
    """One `orders run`. Its store and its ports outlive the process, as they do in earnest."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.http, self.admin = (f"127.0.0.1:{port}" for port in (free_port(), free_port()))
        self.url = f"http://{self.http}"
        self.log_file = directory / "instance.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "APP_ENV": "test",
            "LOG_FORMAT": "json",
            "NATS_STORE_DIR": str(directory / "store"),
            "HTTP_BIND": self.http,
            "ADMIN_BIND": self.admin,
            "PAYMENT_CALL_TIMEOUT": "400ms",
            **environ,
        }

    def start(self) -> None:
        launcher = [sys.executable, "-I", "-S", "-c", embedded._DIE_WITH_PARENT, str(os.getpid())]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*launcher, sys.executable, "-m", "runtime", "run"],
                env=self.environ,
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )

    def terminate(self) -> None:
        assert self.process is not None
        self.process.terminate()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def wait_ended(self, within_s: float) -> int:
        """Wait for the exit code."""
        assert self.process is not None
        with trio.fail_after(within_s):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)

    async def wait_ready(self, within_s: float = 20) -> None:
        """Wait until it takes orders."""
        await self._wait_ok("/readyz", within_s)

    async def wait_listening(self, within_s: float = 20) -> None:
        """Wait until it answers, be it that it takes no orders."""
        await self._wait_ok("/livez", within_s)

    async def _wait_ok(self, path: str, within_s: float) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as http:
            with trio.fail_after(within_s):
                while not await _says_ok(http, path):
                    assert self.process is not None
                    assert self.process.poll() is None, self.log_file.read_text()
                    await trio.sleep(0.02)

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far, over all its starts."""
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def nats_pid(self) -> int:
        served = [line["pid"] for line in self.log if line["event"] == "nats_server_serving"]
        return int(served[-1])

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{(self.directory / 'store' / 'port').read_text().strip()}"

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Every movement of money, as the built-in payment provider wrote it down."""
        lines = (self.directory / "store" / "payments.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@dataclass
class Promise:
    """One order as its client knows it: what was asked for, and what the answers were."""

    key: str
    body: dict[str, Any]
    order_ids: set[str] = field(default_factory=set)
    attempts: int = 0
    view: dict[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return bool(self.order_ids)

    @property
    def order_id(self) -> str:
        [order_id] = self.order_ids
        return order_id

    @property
    def total_minor(self) -> int:
        return sum(item["quantity"] * item["unit_price_minor"] for item in self.body["items"])


class Client:
    """Places orders over HTTP as a careful client does: a key each, and the same again until there is an answer."""

    def __init__(self, http: httpx.AsyncClient, instances: Sequence[Instance]) -> None:
        self.journal: dict[str, Promise] = {}
        self.answers: Counter[int] = Counter()
        self.slowest_s = 0.0
        self._http, self._instances = http, instances
        self._turn = 0

    async def stock(self, levels: Mapping[str, int] = STOCK) -> None:
        (await self._administer("PUT", json=dict(levels))).raise_for_status()

    async def stock_levels(self) -> dict[str, dict[str, int]]:
        levels: dict[str, dict[str, int]] = (await self._administer("GET")).json()
        return levels

    async def _administer(self, method: str, **more: Any) -> httpx.Response:
        """Ask whichever instance is there."""
        for instance in self._instances:
            with suppress(httpx.TransportError):
                return await self._http.request(method, f"http://{instance.admin}/stock", **more)
        raise AssertionError("no instance is there")

    async def load(
        self,
        count: int,
        *,
        clients: int = 12,
        when: Mapping[int, Callable[[], None]] | None = None,
        looks_up: bool = True,
    ) -> None:
        """Place so many more orders; every 10th is cancelled and every 4th looked up at once.

        `when` so many are accepted, do something.
        """
        numbers = iter(range(len(self.journal), len(self.journal) + count))
        todo = dict(sorted((when or {}).items()))

        async def work() -> None:
            for number in numbers:
                promise = await self.place(f"key-{number}", order_number(number))
                if number % 10 == 0:
                    await self.insist("POST", f"/orders/{promise.order_id}/cancel")
                if looks_up and number % 4 == 1:
                    found = await self.insist("GET", f"/orders/{promise.order_id}")
                    assert found.status_code == 200, "it was accepted, so it is found from then on"
                accepted = sum(promise.accepted for promise in self.journal.values())
                if todo and accepted >= next(iter(todo)):
                    todo.pop(next(iter(todo)))()

        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(work)
        assert not todo, "something was to be done during this load, and was not"

    async def place(self, key: str, body: dict[str, Any]) -> Promise:
        promise = self.journal.setdefault(key, Promise(key, body))
        headers = {"Idempotency-Key": key}
        answer = await self.insist("POST", "/orders", json=body, headers=headers, counts=promise)
        assert answer.status_code == 202, answer.text
        promise.order_ids.add(answer.json()["order_id"])
        return promise

    async def insist(
        self, method: str, path: str, *, counts: Promise | None = None, **more: Any
    ) -> httpx.Response:
        """Ask the instances in turn, until one answers with something other than "not now"."""
        self._turn += 1
        first = self._turn % len(self._instances)
        while True:
            for instance in (*self._instances[first:], *self._instances[:first]):
                if counts is not None:
                    counts.attempts += 1
                answer = await self.ask(instance, method, path, **more)
                if answer is not None and answer.status_code not in (429, 503):
                    assert answer.status_code < 500, answer.text
                    return answer
                assert answer is None or "retry-after" in answer.headers
            await trio.sleep(RETRY_S)

    async def ask(
        self, instance: Instance, method: str, path: str, **more: Any
    ) -> httpx.Response | None:
        """Ask once. None where the connection broke: then nobody knows."""
        started = time.monotonic()
        try:
            answer = await self._http.request(method, f"{instance.url}{path}", **more)
        except httpx.TransportError:
            return None
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        self.answers[answer.status_code] += 1
        return answer

    async def wait_settled(self, within_s: float = 30) -> None:
        """Wait until every accepted order is terminal, and keep what is said of each."""
        waiting = iter([promise for promise in self.journal.values() if promise.accepted])

        async def look() -> None:
            for promise in waiting:
                while promise.view.get("status") not in TERMINAL:
                    answer = await self.insist("GET", f"/orders/{promise.order_id}")
                    assert answer.status_code == 200, (promise, answer.text)
                    promise.view = answer.json()
                    if promise.view["status"] not in TERMINAL:
                        await trio.sleep(RETRY_S)

        with trio.fail_after(within_s):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(look)

    async def wait_unreserved(self, within_s: float = 10) -> dict[str, dict[str, int]]:
        """Wait until inventory has heard of every outcome, too; the levels then."""
        with trio.fail_after(within_s):
            levels = await self.stock_levels()
            while any(level["reserved"] for level in levels.values()):
                await trio.sleep(RETRY_S)
                levels = await self.stock_levels()
        return levels

    async def ask_again(self, every: int = 5) -> None:
        """Repeat some orders with the keys they had: each answers as it did, whatever has happened since."""
        for promise in list(self.journal.values())[::every]:
            headers = {"Idempotency-Key": promise.key}
            answer = await self.insist("POST", "/orders", json=promise.body, headers=headers)
            said = {"order_id": promise.order_id, "status": promise.view["status"]}
            assert (answer.status_code, answer.json()) == (202, said)


def order_number(number: int) -> dict[str, Any]:
    """The body of the n-th order, always the same."""
    rng = random.Random(number)
    skus = rng.sample(sorted(STOCK), rng.randint(1, 3))
    return {
        "customer_id": str(10_000 + number % 97),
        "currency": "GBP",
        "items": [
            {"sku": sku, "quantity": rng.randint(1, 4), "unit_price_minor": rng.randint(1, 2_000)}
            for sku in skus
        ],
        "payment_token": rng.choice(TOKENS),
    }


def find_faults(
    journal: Mapping[str, Promise],
    ledger: Sequence[Mapping[str, Any]],
    levels: Mapping[str, Mapping[str, int]],
    initial: Mapping[str, int] = STOCK,
) -> list[str]:
    """Everything that a customer, a bank or a shopkeeper could hold against us. Empty is what we promise."""
    faults = []
    captures = Counter(line["reference"] for line in ledger if line["kind"] == "capture")
    net: Counter[str] = Counter()
    for line in ledger:
        sign = 1 if line["kind"] == "capture" else -1
        net[line["reference"]] += sign * line["amount_minor"]
    sold: Counter[str] = Counter()
    ours = set()
    for promise in journal.values():
        if not promise.accepted:
            continue
        ours |= promise.order_ids
        if len(promise.order_ids) > 1:
            faults.append(f"{promise.key} got several orders: {promise.order_ids}")
            continue
        status = promise.view.get("status")
        ends = [line for line in promise.view.get("history", ()) if line["status"] in TERMINAL]
        if status not in TERMINAL or len(ends) != 1:
            faults.append(f"{promise.key} is lost: {promise.view}")
        owed = promise.total_minor if status == "confirmed" else 0
        if net[promise.order_id] != owed:
            faults.append(f"{promise.key}, {status}: charged {net[promise.order_id]}, not {owed}")
        if status == "confirmed":
            for item in promise.body["items"]:
                sold[item["sku"]] += item["quantity"]
    faults += [f"{ref} was charged {n} times" for ref, n in captures.items() if n > 1]
    faults += [f"{ref} was charged, and nobody ordered it" for ref in captures.keys() - ours]
    for sku, count in initial.items():
        want = {
            "initial": count,
            "on_hand": count - sold[sku],
            "reserved": 0,
            "available": count - sold[sku],
            "sold": sold[sku],
        }
        if levels.get(sku) != want:
            faults.append(f"stock of {sku} is {levels.get(sku)}, not {want}")
    return faults


async def _says_ok(http: httpx.AsyncClient, path: str) -> bool:
    try:
        return (await http.get(path)).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def new_instance(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    """Makes instances, not started yet: each with ports and a store of its own, and `environ` beside the defaults."""
    made: list[Instance] = []

    def make(**environ: str) -> Instance:
        made.append(Instance(tmp_path / f"instance-{len(made)}", environ))
        return made[-1]

    yield make
    for instance in made:
        instance.kill()


class Provider:
    """A payment provider that several instances share, as they do in earnest, and its books."""

    def __init__(self) -> None:
        self.url = ""
        self.simulator = Simulator(Ledger())

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return [msgspec.structs.asdict(line) for line in self.simulator._ledger.lines]


@pytest.fixture
async def provider(nursery: trio.Nursery) -> Provider:
    provider = Provider()
    provider.url = await nursery.start(serve, provider.simulator)
    return provider


@pytest.fixture
def open_client() -> Callable[..., AbstractAsyncContextManager[Client]]:
    """Opens a client of some instances; it spreads its requests over them."""

    @asynccontextmanager
    async def opened(*instances: Instance) -> AsyncIterator[Client]:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=40, keepalive_expiry=2)
        async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits) as http:
            yield Client(http, instances)

    return opened


@pytest.fixture
def audit() -> Callable[..., list[str]]:
    """What could be held against us, from a journal, a ledger and stock levels."""
    return find_faults
