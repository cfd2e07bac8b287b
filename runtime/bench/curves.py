"""The rows that take long: growth over the decades, orders of many lines, recovery."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from actors.order_check import LINES_MAX
from runtime.bench.frames import Kind
from runtime.bench.load import Load
from runtime.bench.measured import measured
from runtime.bench.plan import Figures, Plan
from runtime.bench.rows import HELD, latencies, open_shop, since

FIRST_DECADE = 1_000
LINE_COUNTS = (2, 10, 50, LINES_MAX)  # As many as an order may have.
LINES_IN_ALL = 20_000  # For each of these counts.


async def growth(plan: Plan) -> Figures:
    """One instance, up to 10^3, 10^4, ... orders: at the end of each decade how fast, how soon, how large."""
    decades = []
    async with open_shop(plan) as (instance, load, _):
        for total in _decades(plan.until):
            sample = min(plan.orders, (total - load.placed) // 2)
            await load.all_at_once(total - load.placed - sample, in_flight=plan.in_flight)
            before = instance.usage()
            await load.all_at_once(sample, in_flight=plan.in_flight)
            after = instance.usage()
            took_ms = await load.paced(plan.paced, plan.rate_hz)
            rss_mb = round(instance.usage().rss_mb, 1)
            used = since(before, after, sample)
            decades.append({"total": total, **used, **latencies(took_ms), "rss_mb": rss_mb})
        await load.check()
    return {"decades": decades}


def _decades(until: int) -> list[int]:
    decades = [FIRST_DECADE]
    while decades[-1] * 10 <= until:
        decades.append(decades[-1] * 10)
    return decades


async def lines(plan: Plan) -> Figures:
    """Orders of few lines and of many: what a line costs must not depend on how many there are."""
    sizes = []
    async with open_shop(plan) as (instance, load, _):
        for count in LINE_COUNTS:
            orders = max(20, min(plan.orders, LINES_IN_ALL // count))
            before = instance.usage()
            await load.all_at_once(orders, in_flight=min(plan.in_flight, 64), lines=count)
            used = since(before, instance.usage(), orders)
            line_us = (used["cpu_ms_per_order_runtime"] / count) * 1e3
            sizes.append({"lines": count, **used, "cpu_us_per_line_runtime": round(line_us, 1)})
        await load.check()
    return {"sizes": sizes}


async def recovery(plan: Plan) -> Figures:
    """SIGKILL with many orders live, after few finished ones and after many: time until orders are taken again."""
    return {"after": [await _recover(plan, finished) for finished in (FIRST_DECADE, plan.until)]}


async def _recover(plan: Plan, finished: int) -> Figures:
    with TemporaryDirectory(prefix="orders-bench-") as directory:
        store = Path(directory)
        async with measured(store, HELD) as instance:
            load = Load(instance.channel)
            await load.open_shop(plan.warm_up)
            await load.all_at_once(finished, in_flight=plan.in_flight)
            await instance.channel.command("hold till")
            await load.all_at_once(plan.live, kind=Kind.ASK_AND_LEAVE)
            instance.kill()
        async with measured(store, HELD) as instance:
            since_s = time.perf_counter()
            rss_mb = instance.usage().rss_mb
            load.channel = instance.channel
            await load.check()
            return {
                "finished": finished,
                "live": plan.live,
                "taking_s": round(instance.taking_s, 3),
                "taking_s_without_imports": round(instance.taking_s_without_imports, 3),
                "all_confirmed_s": round(instance.taking_s + time.perf_counter() - since_s, 3),
                "rss_mb": round(rss_mb, 1),
            }
