"""The benchmark: a whole instance as a process of its own, under full supervision, and the load in this one.

| module | what it is for |
|---|---|
| `rows` | throughput, intake, latency, http, memory, channel: a minute together |
| `curves` | recovery and lines: half a minute; growth: by `--until`, ten minutes for a million |
| `profile`, `parts` | where an order's time goes, by part of the program |
| `pairs` | what tracing and failpoints cost, as paired ratios |
| `load`, `http_load`, `goods` | orders, and how they are placed: over the channel, by the open way, over HTTP |
| `measured`, `frames` | the measured process as the load sees it, and the channel between them |
| `instance`, `empty_route` | the processes that are measured; nothing else here imports what they run |
| `table`, `plots` | figures for people |

The broker runs beside it with every append synced; the payment provider is a stub within the instance that answers at
once and remembers nothing. This process never imports the bridge between asyncio and trio, and no row believes itself:
at its end every unit must have been sold, once.
"""

import os
import platform
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from runtime.bench.curves import growth, lines, recovery
from runtime.bench.pairs import ratios
from runtime.bench.plan import Figures, Plan
from runtime.bench.profile import profile, profile_alone
from runtime.bench.rows import channel, http, intake, latency, memory, throughput
from runtime.embedded import server_path

__all__ = ["ROWS", "SHORT", "Plan", "machine", "run_bench"]

ROWS: Mapping[str, Callable[[Plan], Awaitable[Figures]]] = {
    row.__name__: row
    for row in (
        throughput,
        intake,
        latency,
        http,
        memory,
        channel,
        lines,
        growth,
        recovery,
        ratios,
        profile,
        profile_alone,
    )
}
SHORT = ("throughput", "intake", "latency", "http", "memory", "channel")


def run_bench(
    plan: Plan, rows: Sequence[str] = SHORT, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure these rows one after the other; returns the figures, ready for JSON."""
    figures: dict[str, Any] = {"machine": machine()}
    for name in rows:
        tell(f"{name}: {(ROWS[name].__doc__ or '').splitlines()[0]}")
        figures[name] = trio.run(ROWS[name], plan)
    return figures


def machine() -> Figures:
    return {
        "python": platform.python_version(),
        "nats_server": _broker_version(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }


def _broker_version() -> str:
    told = subprocess.run([server_path(), "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - Ours.
    return told.stdout.strip().rpartition(": ")[2]
