"""F23: poison. A stranger publishes mutated, truncated, oversized and mis-addressed messages beside good orders."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio

from actors import Terms
from runtime.bridge import Address, Bridge
from runtime.chaos.http import NoAnswerError
from runtime.chaos.outcome import percentile
from runtime.chaos.poison import find_unburied, poison
from runtime.chaos.process import wait_for
from runtime.chaos.row import Row
from runtime.chaos.shopping import STOCK
from runtime.chaos.stage import Stage
from runtime.config import load as load_config
from runtime.jetstream import JetStreamLog
from runtime.shards import Shards
from runtime.system import shard_counts

BATCH = 1_000  # Messages a fault.
WRITERS = 4
BURIED_WITHIN_S = 120.0
STALL_MS = 100.0
PROBE_EVERY_S = 0.01

LATE_MS: list[float] = []  # Of the campaign at hand; one runs at a time.


async def poisoned(stage: Stage) -> None:
    """One batch, published as fast as the broker stores it."""
    async with stage.fault(f"{BATCH} poisonous messages") as fault, _log_of(stage) as log:
        fault.struck()
        batch = stage.fired
        random, skus = Random(stage.options.seed * 1_000 + batch), sorted(STOCK)  # noqa: S311  # It has to repeat.
        waiting = [poison(random, f"s{batch}-{n}", random.choice(skus)) for n in range(BATCH)]

        async def publish() -> None:
            while waiting:
                subject, payload, headers = waiting.pop()
                await log.append(subject, payload, headers=headers)

        async with trio.open_nursery() as writers:
            for _ in range(WRITERS):
                writers.start_soon(publish)
        stage.counts["poisonous messages"] += BATCH


async def probe(stage: Stage) -> None:
    """Ask the loop for a sign of life all the time: how late it answers is how long it stood still, at most."""
    LATE_MS.clear()
    while True:
        began_s = time.perf_counter()
        try:
            await stage.http.ask("GET", stage.instance.http, "/livez")
            LATE_MS.append((time.perf_counter() - began_s) * 1000)
        except NoAnswerError:
            stage.counts["unanswered probes"] += 1
        await trio.sleep(PROBE_EVERY_S)


async def judge(stage: Stage) -> None:
    """Each bad message has its letter; nobody crashed."""
    counts = shard_counts(load_config(stage.instance.environ, env_file=stage.directory / "none"))
    routes = Shards(Terms(), counts).routes()
    missing: list[str] = []

    async def is_buried() -> bool:
        nonlocal missing
        missing, buried = await find_unburied(log, routes)
        stage.counts["set aside"] = buried
        return not missing

    slow_ms = percentile(LATE_MS, 99.9)
    stage.notes.append(f"/livez p99.9 {slow_ms:.0f} ms of {len(LATE_MS)}")
    if slow_ms > STALL_MS:  # On a machine that is shared it need not be us.
        stage.doubts.append(f"the loop answered late: p99.9 {slow_ms:.0f} ms, not {STALL_MS:.0f}")
    async with _log_of(stage) as log:
        await wait_for(is_buried, every_s=1.0, within_s=BURIED_WITHIN_S)
    stage.findings += missing[:5]
    stage.findings += [
        f"a child crashed: {one}" for one in stage.instance.logged("child_crashed")[:3]
    ]


@asynccontextmanager
async def _log_of(stage: Stage) -> AsyncIterator[JetStreamLog]:
    """The log as a stranger reaches it: past whatever stands between it and the instance."""
    async with trio.open_nursery() as nursery:
        bridge = Bridge(Address(stage.brokers.urls), name="stranger")
        await nursery.start(bridge.run)
        await bridge.wait_connected()
        yield JetStreamLog(bridge)
        nursery.cancel_scope.cancel()


ROWS = (
    Row(
        "F23",
        "poisonous messages among good orders",
        goal="each bad one is set aside once, with its reason; 0 crashes; the loop stands still for 100 ms at most",
        strikes=(poisoned,),
        faults=100,
        pause_s=(0.0, 0.1),
        watch=probe,
        judge=judge,
        in_mix=False,
    ),
)
