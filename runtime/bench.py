"""The benchmark: orders placed without HTTP on a real broker, under full supervision, measured from inside.

On a fresh store: a warm-up; throughput with a fixed number of orders in flight; latency at a fixed rate, where each
order has its own due time, so that a stall is charged to every order that it delays. The payment provider is a stub
within the process that answers at once and remembers nothing. Tracing is on, sampled at 1 %.
"""

import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from actors.actor import Outcome
from actors.order_state import OrderState, OrderStatus
from messages.codec import encode
from messages.generated.orders.v1 import OrderCreated, OrderItem, StockCounted
from runtime import logs, tracing
from runtime.collector import tune_collector
from runtime.config import load
from runtime.config_variables import LogFormat, LogLevel
from runtime.desk import read_stock
from runtime.gateway_contract import Reply, Request
from runtime.recall import INTAKE
from runtime.shard import PATIENCE_S
from runtime.system import NEVER_RESTART, System
from supervisors import SupervisorSpec, supervise

SKUS = 1_000
QUANTITIES = (1, 2)  # Two items an order.
ON_HAND = 10**12
WARM_UP = 500
CONFIRMED_WITHIN_S = 30.0
SOLD_WITHIN_S = 10.0
TUNABLE = ("ORDER_SHARDS", "INVENTORY_SHARDS", "PAYMENT_SHARDS", "WORKER_POOL_SIZE")
"""Variables that are passed on, so that they can be measured."""

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: so many orders at once `in_flight`, then `paced` orders at `rate_hz`. `by` is ask or intake."""

    orders: int = 20_000
    in_flight: int = 256
    paced: int = 500
    rate_hz: float = 50.0
    by: str = "ask"


class Till:
    """A payment provider that takes every charge at once."""

    def __init__(self) -> None:
        self.charges = 0

    async def send(self, request: Request) -> Reply:  # noqa: ARG002  # It does not look at the card.
        self.charges += 1
        return Reply(201, b'{"id":"ch_%d","status":"captured"}' % self.charges)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, of us and of the broker; and our resident memory."""

    at_s: float
    runtime_s: float
    broker_s: float
    rss_mb: float

    @classmethod
    def now(cls, broker_pid: int) -> "Usage":
        stat = Path(f"/proc/{broker_pid}/stat").read_text().rpartition(")")[2].split()
        broker_s = (int(stat[11]) + int(stat[12])) * TICK_S
        rss_mb = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB
        return cls(time.perf_counter(), time.process_time(), broker_s, rss_mb)


async def measure(plan: Plan) -> dict[str, Any]:
    """Run the whole plan; returns the figures, ready for JSON."""
    with tempfile.TemporaryDirectory(prefix="orders-bench-") as store:
        async with _instance(Path(store)) as system:
            load_ = _Load(system, plan)
            await load_.stock()
            await load_.all_at_once(WARM_UP)
            figures = await _throughput(load_, system, plan)
            figures |= await _latency(load_, system, plan)
            figures |= await _check(load_, system)
    return {"by": plan.by, "in_flight": plan.in_flight, **_machine(), **figures}


async def _throughput(load_: "_Load", system: System, plan: Plan) -> dict[str, Any]:
    before = _usage(system)
    await load_.all_at_once(plan.orders)
    after = _usage(system)
    span_s, n = after.at_s - before.at_s, plan.orders
    return {
        "orders": n,
        "orders_per_s": round(n / span_s, 1),
        "cpu_ms_per_order_runtime": round((after.runtime_s - before.runtime_s) / n * 1e3, 3),
        "cpu_ms_per_order_broker": round((after.broker_s - before.broker_s) / n * 1e3, 3),
        "rss_mb_before": round(before.rss_mb, 1),
        "rss_mb_after": round(after.rss_mb, 1),
    }


async def _latency(load_: "_Load", system: System, plan: Plan) -> dict[str, Any]:
    if not plan.paced:
        return {}
    before = _usage(system)
    took_ms = sorted(await load_.paced(plan.paced, plan.rate_hz))
    after = _usage(system)
    cpu_s = after.runtime_s - before.runtime_s + after.broker_s - before.broker_s
    return {
        "rate_hz": plan.rate_hz,
        "p50_ms": round(took_ms[len(took_ms) // 2], 2),
        "p99_ms": round(took_ms[int(len(took_ms) * 0.99)], 2),
        "max_ms": round(took_ms[-1], 2),
        "cpu_ms_per_order_paced": round(cpu_s / plan.paced * 1e3, 3),
    }


async def _check(load_: "_Load", system: System) -> dict[str, Any]:
    """A benchmark of something that does not work is worth nothing: every order confirmed, every unit sold."""
    sold, expected = 0, load_.placed * sum(QUANTITIES)
    with trio.move_on_after(SOLD_WITHIN_S):
        while sold != expected:
            await trio.sleep(2 * PATIENCE_S)  # Nobody waits for a sale, so its record may.
            levels = await read_stock(system.log, system.shards.counts["inventory"])
            sold = sum(level["sold"] for level in levels.values())
    return {"confirmed": load_.placed, "units_sold_correct": sold == expected}


def _usage(system: System) -> Usage:
    assert system.embedded is not None
    assert system.embedded.pid is not None
    return Usage.now(system.embedded.pid)


class _Load:
    """Places orders and waits until each is confirmed."""

    def __init__(self, system: System, plan: Plan) -> None:
        self._system, self._plan = system, plan
        self.placed = 0

    async def stock(self) -> None:
        asks = [
            await self._system.shards.ask("inventory", sku, StockCounted(sku=sku, on_hand=ON_HAND))
            for sku in map(_sku, range(SKUS))
        ]
        for ask in asks:
            await ask.wait_answered()

    async def all_at_once(self, count: int) -> None:
        """Place `count` orders, with the planned number in flight at any time."""
        numbers = iter(range(self.placed, self.placed + count))
        self.placed += count

        async def worker() -> None:
            for number in numbers:
                await self._one(number)

        async with trio.open_nursery() as nursery:
            for _ in range(self._plan.in_flight):
                nursery.start_soon(worker)

    async def paced(self, count: int, rate_hz: float) -> list[float]:
        """Place an order every 1/rate seconds, ready or not; returns each one's milliseconds from its due time."""
        took_ms: list[float] = []
        start_s = trio.current_time()

        async def one(number: int, due_s: float) -> None:
            await self._one(number)
            took_ms.append((trio.current_time() - due_s) * 1e3)

        async with trio.open_nursery() as nursery:
            for nth in range(count):
                due_s = start_s + nth / rate_hz
                await trio.sleep_until(due_s)
                nursery.start_soon(one, self.placed + nth, due_s)
        self.placed += count
        return took_ms

    async def _one(self, number: int) -> None:
        created = _order(number)
        confirmed = trio.Event()

        def tell(state: OrderState) -> None:
            if state.status is OrderStatus.CONFIRMED:
                confirmed.set()

        with self._system.views.watching(created.order_id, tell):
            await self._place(created)
            with trio.fail_after(CONFIRMED_WITHIN_S):
                await confirmed.wait()

    async def _place(self, created: OrderCreated) -> None:
        if self._plan.by == "intake":
            await self._system.log.append(f"{INTAKE}.{created.order_id}", encode(created))
            return
        with self._system.tracer.start_order("place order") as span:
            shards = self._system.shards
            ask = await shards.ask("order", created.order_id, created, span.traceparent)
            answer = await ask.wait_answered()
        if answer.outcome is not Outcome.DONE:
            raise RuntimeError(f"{created.order_id} was refused: {answer}")


def _order(number: int) -> OrderCreated:
    items = [
        OrderItem(sku=_sku(number * 7 + nth * 13), quantity=quantity, unit_price_minor=1999)
        for nth, quantity in enumerate(QUANTITIES)
    ]
    return OrderCreated(
        order_id=f"bench-{number:012d}",
        customer_id=f"customer-{number % 997}",
        items=items,
        currency="EUR",
        total_minor=1999 * sum(QUANTITIES),
        payment_token="tok_ok",  # noqa: S106  # A stub's token is no secret.
    )


def _sku(number: int) -> str:
    return f"sku-{number % SKUS:04d}"


@asynccontextmanager
async def _instance(store: Path) -> AsyncIterator[System]:
    """A whole instance but for HTTP, in this process, under its supervisors."""
    environ = {
        "NATS_STORE_DIR": str(store),
        "LOG_LEVEL": "warning",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
        "ORDERS_TRACE_FILE": str(store / "traces.jsonl"),
        **{name: os.environ[name] for name in TUNABLE if name in os.environ},
    }
    config = load(environ, env_file=store / "no.env")
    logs.configure(LogLevel.WARNING, LogFormat.CONSOLE)
    tracer = tracing.start(config)
    system = System(config, tracer, provider=Till())
    async with trio.open_nursery() as nursery:
        supervisor = await nursery.start(partial(_supervise, system, system.spec(with_http=False)))
        yield system
        await supervisor.stop()
    tracer.close()


async def _supervise(
    system: System, spec: SupervisorSpec, *, task_status: trio.TaskStatus[Any]
) -> None:
    await supervise(
        spec,
        on_report=system.on_report,
        on_open=system.adopt,
        never_restart=NEVER_RESTART,
        task_status=task_status,
    )


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "cores": os.cpu_count()}


def run_bench(plan: Plan) -> dict[str, Any]:
    """Measure in a trio run of our own."""
    tune_collector()
    return trio.run(measure, plan)
