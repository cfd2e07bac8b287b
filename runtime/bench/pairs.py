"""Paired ratios: two settings measured in turn, so that a machine that slows down slows both."""

from collections.abc import Mapping
from statistics import median, quantiles

from runtime.bench.plan import Figures, Plan
from runtime.bench.rows import throughput

Settings = Mapping[str, str]

PAIRS: Mapping[str, tuple[Settings, Settings]] = {
    "tracing 1 % / off": ({}, {"OTEL_SDK_DISABLED": "true"}),
    "tracing 100 % / off": ({"OTEL_TRACES_SAMPLER_ARG": "1"}, {"OTEL_SDK_DISABLED": "true"}),
    "failpoints there / not": ({"FAULTS": "on"}, {}),
}


async def ratios(plan: Plan) -> Figures:
    """The first setting of each pair over the second; below 1 is less CPU, or fewer orders a second."""
    return {name: await _compare(plan, *settings) for name, settings in PAIRS.items()}


async def _compare(plan: Plan, one: Settings, other: Settings) -> Figures:
    cpu, speed = [], []
    for nth in range(plan.pairs):
        order = (one, other) if nth % 2 else (other, one)
        runs = {id(settings): await throughput(plan, settings) for settings in order}
        mine, theirs = runs[id(one)], runs[id(other)]
        cpu.append(mine["cpu_ms_per_order_runtime"] / theirs["cpu_ms_per_order_runtime"])
        speed.append(mine["orders_per_s"] / theirs["orders_per_s"])
    return {"pairs": plan.pairs, "cpu_per_order": _spread(cpu), "orders_per_s": _spread(speed)}


def _spread(ratios: list[float]) -> Figures:
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": round(median(ratios), 3), "quartiles": [round(low, 3), round(high, 3)]}
