"""Where an order's time goes: the profiler's own time of every function, summed by the part of the program it is in.

A C function counts where it is called from. The profiler makes calls dearer than they are, so that parts of many small
functions look somewhat larger than they are: shares are told, and what they are of the CPU time measured without it.
"""

import cProfile
import pstats
from collections import Counter
from collections.abc import Mapping

PARTS: Mapping[str, str] = {
    "/runtime/bench/": "the benchmark's channel",
    "/runtime/gateway": "payment gateway",
    "/runtime/views": "views",
    "/runtime/trac": "tracing",
    "/opentelemetry/": "tracing",
    "/runtime/tail": "tail and routing",
    "/runtime/addressing": "tail and routing",
    "/messages/routing": "tail and routing",
    "/runtime/bridge": "broker client",
    "/runtime/link": "broker client",
    "/runtime/jetstream": "broker client",
    "/nats/": "broker client",
    "/trio_asyncio/": "asyncio under trio",
    "/asyncio/": "asyncio under trio",
    "/trio/": "trio",
    "/messages/": "messages: facts and records",
    "/betterproto/": "messages: facts and records",
    "/google/": "messages: facts and records",
    "/actors/": "actors",
    "/supervisors/": "supervisors",
    "/runtime/": "shards: hear, commit, act",
}
"""By what is in a file's name; the first that fits. What fits none is `the rest`."""

ASLEEP = "<method 'poll' of 'select.epoll' objects>"
SOCKETS = "' of '_socket.socket' objects>"
SYSTEM_CALLS = "sockets: sending and receiving"


class Profiler:
    """Watches this thread between two words of the load."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile()

    def start(self) -> None:
        self._profile.enable()

    def stop(self) -> dict[str, float]:
        """Seconds by part, less those asleep."""
        self._profile.disable()
        return seconds_by_part(pstats.Stats(self._profile))


def seconds_by_part(stats: pstats.Stats) -> dict[str, float]:
    """The own time of all functions but waiting for something to happen."""
    seconds: Counter[str] = Counter()
    for place, (_, _, own_s, _, callers) in stats.stats.items():  # type: ignore[attr-defined]  # Not in its stub.
        if place[2] == ASLEEP:
            continue
        if place[2].endswith(SOCKETS):
            seconds[SYSTEM_CALLS] += own_s
            continue
        if place[0] != "~":
            seconds[part_of(place[0])] += own_s
            continue
        for caller, (_, _, called_s, _) in callers.items():
            seconds[part_of(caller[0])] += called_s
    return dict(seconds)


def part_of(file: str) -> str:
    """The part of the program that a source file belongs to."""
    return next((part for mark, part in PARTS.items() if mark in file), "the rest")


def shares(seconds: Mapping[str, float], cpu_ms: float) -> list[dict[str, str | float]]:
    """A line for each part, the largest first: its share, and what that is of the CPU time of an order."""
    in_all = sum(seconds.values())
    largest_first = sorted(seconds.items(), key=lambda one: -one[1])
    return [
        {
            "part": part,
            "percent": round(100 * part_s / in_all, 1),
            "us_per_order": round(1000 * cpu_ms * part_s / in_all, 1),
        }
        for part, part_s in largest_first
    ]
