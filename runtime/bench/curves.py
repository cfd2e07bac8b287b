"""The rows that take long: growth over the decades, orders of many lines, recovery."""

import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.bench.frames import Kind
from runtime.bench.load import Load
from runtime.bench.measured import Measured, measured
from runtime.bench.plan import Figures, Plan
from runtime.bench.rows import HELD, latencies, open_shop, since

FIRST_DECADE = 1_000
LINE_COUNTS = (1, 10, 100, 500)
LINES_IN_ALL = 20_000  # For each of these counts.
ALONE = 9  # Orders one after the other, of which the median is told.
BLOCK_MB = 512 / 1e6


async def growth(plan: Plan) -> Figures:
    """One instance, up to 10^3, 10^4, ... orders: after each decade how fast, how soon, how large; and a recovery."""
    decades: list[Figures] = []
    with TemporaryDirectory(prefix="orders-bench-") as directory:
        store = Path(directory)
        async with measured(store, HELD) as instance:
            load = Load(instance.channel)
            await load.open_shop(plan.warm_up)
            for total in _decades(plan.until):
                await load.all_at_once(total - load.placed, in_flight=plan.in_flight)
                decades.append({"total": total, **await _look(plan, instance, load, store)})
            await load.check()
            finished = load.placed
            await _leave_live(plan, instance, load)
        recovered = await _recover(plan, load, store)
    for one in decades:
        for name in ("orders_per_s", "p99_ms"):
            one[f"{name}_over_first"] = round(one[name] / decades[0][name], 3)
    return {"decades": decades, "recovery": {"finished": finished, **recovered}}


def _decades(until: int) -> list[int]:
    decades = [FIRST_DECADE]
    while decades[-1] * 10 <= until:
        decades.append(decades[-1] * 10)
    return decades


async def _look(plan: Plan, instance: Measured, load: Load, store: Path) -> Figures:
    """Full load for a moment, then a fixed rate, then what it has come to take."""
    before = instance.usage()
    await load.all_at_once(plan.window, in_flight=plan.in_flight)
    after = instance.usage()
    took_ms = await load.paced(plan.paced, plan.rate_hz)
    large = instance.usage()
    return {
        **since(before, after, plan.window),
        **latencies(took_ms),
        **await instance.channel.command("tell snapshots"),
        "rss_mb": round(large.rss_mb, 1),
        "broker_rss_mb": round(large.broker_rss_mb, 1),
        "store_mb": round(_size_mb(store), 1),
    }


def _size_mb(directory: Path) -> float:
    """What a directory takes on its disk; the broker may delete files meanwhile."""
    blocks = 0
    for file in directory.rglob("*"):
        with suppress(FileNotFoundError):
            blocks += file.stat().st_blocks
    return blocks * BLOCK_MB


async def lines(plan: Plan) -> Figures:
    """Orders of few lines and of many: what a line costs must not depend on how many there are."""
    sizes = []
    async with open_shop(plan, {"ORDER_LINES_MAX": str(max(LINE_COUNTS))}) as (instance, load, _):
        for count in LINE_COUNTS:
            orders = max(20, min(plan.orders, LINES_IN_ALL // count))
            before = instance.usage()
            await load.all_at_once(orders, in_flight=min(plan.in_flight, 64), lines=count)
            used = since(before, instance.usage(), orders)
            sizes.append({"lines": count, **used, **await _per_line(load, count, used)})
        await load.check()
    return {"sizes": sizes}


async def _per_line(load: Load, count: int, used: Figures) -> Figures:
    took_ms = sorted([await _took_alone_ms(load, count) for _ in range(ALONE)])[ALONE // 2]
    cpu_ms = {process: used[f"cpu_ms_per_order_{process}"] for process in ("runtime", "broker")}
    return {
        **{
            f"cpu_us_per_line_{process}": round(ms * 1e3 / count, 1)
            for process, ms in cpu_ms.items()
        },
        "alone_ms": round(took_ms, 3),
        "alone_ms_per_line": round(took_ms / count, 3),
    }


async def _took_alone_ms(load: Load, count: int) -> float:
    started_s = time.perf_counter()
    await load.all_at_once(1, lines=count)
    return (time.perf_counter() - started_s) * 1e3


async def recovery(plan: Plan) -> Figures:
    """SIGKILL with many orders live, after few finished ones: time until orders are taken again. Growth: after many."""
    with TemporaryDirectory(prefix="orders-bench-") as directory:
        store = Path(directory)
        async with measured(store, HELD) as instance:
            load = Load(instance.channel)
            await load.open_shop(plan.warm_up)
            await load.all_at_once(FIRST_DECADE - load.placed, in_flight=plan.in_flight)
            finished = load.placed
            await _leave_live(plan, instance, load)
        return {"finished": finished, **await _recover(plan, load, store)}


async def _leave_live(plan: Plan, instance: Measured, load: Load) -> None:
    """Place orders that wait for their payment, and kill the instance."""
    await instance.channel.command("hold till")
    await load.all_at_once(plan.live, kind=Kind.ASK_AND_LEAVE)
    instance.kill()


async def _recover(plan: Plan, load: Load, store: Path) -> Figures:
    """Start again on that store, and see the orders that were live confirmed."""
    async with measured(store, HELD) as instance:
        since_s = time.perf_counter()
        rss_mb = instance.usage().rss_mb
        load.channel = instance.channel
        await load.check()
        return {
            "live": plan.live,
            "taking_s": round(instance.taking_s, 3),
            "taking_s_without_imports": round(instance.taking_s_without_imports, 3),
            "broker_serving_s": round(instance.broker_serving_s, 3),
            "all_confirmed_s": round(instance.taking_s + time.perf_counter() - since_s, 3),
            "rss_mb": round(rss_mb, 1),
        }
