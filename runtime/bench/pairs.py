"""Paired ratios: two settings measured in turn, so that a machine that slows down slows both."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import trio

from runtime.bench.measured import InstanceDiedError
from runtime.bench.plan import Figures, Plan
from runtime.bench.rows import throughput


@dataclass(frozen=True, slots=True)
class Setting:
    """Environment variables, and whether an `orders audit` of the live log runs beside, one after the other."""

    environ: Mapping[str, str] = field(default_factory=dict)
    is_audited: bool = False

    @asynccontextmanager
    async def beside(self, store: Path) -> AsyncIterator[None]:
        if not self.is_audited:
            yield
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_audit, store)
            yield
            nursery.cancel_scope.cancel()


AS_IT_COMES = Setting()
UNTRACED = Setting({"OTEL_SDK_DISABLED": "true"})

PAIRS: Mapping[str, tuple[Setting, Setting]] = {
    "tracing 1 % / off": (AS_IT_COMES, UNTRACED),
    "tracing 100 % / off": (Setting({"OTEL_TRACES_SAMPLER_ARG": "1"}), UNTRACED),
    "failpoints there / not": (Setting({"FAULTS": "on"}), AS_IT_COMES),
    "audited live / not": (Setting(is_audited=True), AS_IT_COMES),
}


async def ratios(plan: Plan) -> Figures:
    """The first setting of each pair over the second; below 1 is less CPU, or fewer orders a second."""
    return {name: await _compare(plan, *settings) for name, settings in PAIRS.items()}


async def _compare(plan: Plan, one: Setting, other: Setting) -> Figures:
    cpu, speed = [], []
    for nth in range(plan.pairs):
        order = (one, other) if nth % 2 else (other, one)
        runs = {id(each): await throughput(plan, each.environ, each.beside) for each in order}
        mine, theirs = runs[id(one)], runs[id(other)]
        cpu.append(mine["cpu_ms_per_order_runtime"] / theirs["cpu_ms_per_order_runtime"])
        speed.append(mine["orders_per_s"] / theirs["orders_per_s"])
    return {"pairs": plan.pairs, "cpu_per_order": _spread(cpu), "orders_per_s": _spread(speed)}


async def _audit(store: Path) -> None:
    """Audit the log of a running instance, again and again."""
    command = [sys.executable, "-m", "runtime", "audit", "--running", "--json"]
    environ = {
        **os.environ,
        "NATS_STORE_DIR": str(store),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    while True:
        done = await trio.run_process(
            command, env=environ, check=False, stdout=subprocess.DEVNULL, capture_stderr=True
        )
        if done.returncode:
            raise InstanceDiedError(f"orders audit: {done.stderr.decode(errors='replace')[-500:]}")


def _spread(ratios: list[float]) -> Figures:
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": round(median(ratios), 3), "quartiles": [round(low, 3), round(high, 3)]}
