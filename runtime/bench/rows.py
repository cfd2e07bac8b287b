"""The rows of one instance on an empty store: throughput, latency, HTTP, memory, and the channel's own cost."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.bench.frames import Kind
from runtime.bench.goods import LINES, order_json, units
from runtime.bench.http_load import key_of, post_all
from runtime.bench.load import Load, percentile, producer
from runtime.bench.measured import Measured, Usage, cpu_s, empty_route, measured
from runtime.bench.plan import Figures, Plan
from runtime.desk_types import order_id_for

HELD: Mapping[str, str] = {"PAYMENT_CALL_TIMEOUT": "10m", "PAYMENT_DEADLINE": "2h"}
"""For orders that stay live because the payment provider does not answer."""


@asynccontextmanager
async def open_shop(
    plan: Plan, environ: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Measured, Load, Path]]:
    """An instance on an empty store, with stock, warmed up."""
    with TemporaryDirectory(prefix="orders-bench-") as directory:
        store = Path(directory)
        async with measured(store, environ) as instance:
            load = Load(instance.channel)
            await load.open_shop(plan.warm_up)
            yield instance, load, store


def since(before: Usage, after: Usage, orders: int) -> Figures:
    """What so many orders took."""
    return {
        "orders": orders,
        "orders_per_s": round(orders / (after.at_s - before.at_s), 1),
        "cpu_ms_per_order_runtime": round((after.runtime_s - before.runtime_s) / orders * 1e3, 3),
        "cpu_ms_per_order_broker": round((after.broker_s - before.broker_s) / orders * 1e3, 3),
    }


def latencies(took_ms: list[float]) -> Figures:
    return {
        "p50_ms": round(percentile(took_ms, 0.5), 2),
        "p99_ms": round(percentile(took_ms, 0.99), 2),
        "max_ms": round(took_ms[-1], 2),
    }


async def throughput(
    plan: Plan,
    environ: Mapping[str, str] | None = None,
    beside: Callable[[Path], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
) -> Figures:
    """Orders by ask, a fixed number in flight, with something `beside` the instance on its store."""
    async with open_shop(plan, environ) as (instance, load, store):
        async with beside(store):
            before = instance.usage()
            await load.all_at_once(plan.orders, in_flight=plan.in_flight)
            after = instance.usage()
        await load.check()
    return {
        "in_flight": plan.in_flight,
        **since(before, after, plan.orders),
        "rss_mb_before": round(before.rss_mb, 1),
        "rss_mb_after": round(after.rss_mb, 1),
    }


async def intake(plan: Plan) -> Figures:
    """The same by `ORDER.created.*`, published to the broker as any producer does."""
    async with open_shop(plan) as (instance, load, store), producer(store) as stranger:
        before = instance.usage()
        await load.all_at_once(plan.orders, in_flight=plan.in_flight, producer=stranger)
        after = instance.usage()
        await load.check()
    return {"in_flight": plan.in_flight, **since(before, after, plan.orders)}


async def latency(plan: Plan) -> Figures:
    """Place to confirmed at a fixed rate, each order from the time it was due."""
    async with open_shop(plan) as (instance, load, _):
        before = instance.usage()
        took_ms = await load.paced(plan.paced, plan.rate_hz)
        after = instance.usage()
        await load.check()
    used = since(before, after, plan.paced)
    del used["orders_per_s"]  # It is what was asked for.
    return {"rate_hz": plan.rate_hz, **latencies(took_ms), **used}


async def http(plan: Plan) -> Figures:
    """POST /orders over so many connections; beside it an empty route, on our edge and on hypercorn alone."""
    async with open_shop(plan) as (instance, load, _):
        numbers = range(plan.orders)
        await load.watch(list(numbers), lambda number: order_id_for(key_of(number)))
        before = instance.usage()
        took_ms = await post_all(instance.http_port, numbers, plan.connections, order_json)
        after = instance.usage()
        await load.hear_of(plan.orders)
        finished_s = time.perf_counter() - before.at_s
        await load.check(sold_elsewhere=plan.orders * units(LINES))
    return {
        "connections": plan.connections,
        **since(before, after, plan.orders),
        **latencies(took_ms),
        "confirmed_per_s": round(plan.orders / finished_s, 1),
        **await _nothing_done(plan, "edge", "empty_route"),
        **await _nothing_done(plan, "hypercorn", "hypercorn_alone"),
    }


async def _nothing_done(plan: Plan, server: str, name: str) -> Figures:
    """The same requests, to a route that reads them and does nothing."""
    async with empty_route(server) as (port, pid):
        started_s, used_s = time.perf_counter(), cpu_s(pid)
        await post_all(port, range(plan.orders), plan.connections, order_json)
        took_s, used_s = time.perf_counter() - started_s, cpu_s(pid) - used_s
    return {
        f"{name}_per_s": round(plan.orders / took_s, 1),
        f"{name}_cpu_ms": round(used_s / plan.orders * 1e3, 3),
    }


async def memory(plan: Plan) -> Figures:
    """What a live order takes: its stock reserved, its charge on the way."""
    async with open_shop(plan, HELD) as (instance, load, _):
        await load.all_at_once(plan.live // 10)
        await instance.channel.command("hold till")
        before = instance.usage()
        await load.all_at_once(plan.live, kind=Kind.ASK_AND_LEAVE)
        after = instance.usage()
    return {
        "live_orders": plan.live,
        "rss_mb_before": round(before.rss_mb, 1),
        "rss_mb_after": round(after.rss_mb, 1),
        "kb_per_live_order": round((after.rss_mb - before.rss_mb) / plan.live * 1e3, 2),
    }


async def channel(plan: Plan) -> Figures:
    """What it costs the instance that orders come over the channel: CPU of reading them and answering, no more."""
    async with open_shop(plan) as (instance, load, _):
        before = instance.usage()
        await load.all_at_once(plan.orders, kind=Kind.ECHO)
        after = instance.usage()
    used = since(before, after, plan.orders)
    return {"orders": plan.orders, "cpu_ms_per_order_runtime": used["cpu_ms_per_order_runtime"]}
