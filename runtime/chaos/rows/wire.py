"""Rows about what passes between the parts: lost answers, doubled messages, a slow or silent way; and crash points."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from runtime.chaos.conversation import Part, Toward
from runtime.chaos.http_frames import HttpConversation
from runtime.chaos.nats_frames import NatsConversation
from runtime.chaos.proxy import (
    DROP,
    DUPLICATE,
    FORWARD,
    EveryNth,
    Fate,
    Line,
    Passing,
    Proxy,
    Rule,
    forward,
)
from runtime.chaos.row import NotFiredError, Row, Strike
from runtime.chaos.stage import Fault, Stage
from runtime.chaos.sweep import SweepReport, run_sweep

LASTS_S = 10.0  # Twice the time after which an append whose answer is lost is given up.
SILENT_S = 12.0  # Longer than a broker is waited for that says nothing.
LOST_EVERY = 3
LATENCY = Line(latency_s=0.1, jitter_s=0.05)
NARROW = Line(bytes_per_s=125_000)  # 1 Mbit/s, each way and connection.
SPIKE_S = 2.0
SPIKE_EVERY = 200
PAIRS = 25  # Of crash points, for each scenario.
RATE_BESIDE = 1.0  # Orders a second that the campaign itself places while the sweep runs beside it.


class Wires:
    """The proxies of the campaign at hand: one before each broker, one before the provider."""

    def __init__(self) -> None:
        self.brokers: list[Proxy] = []
        self.gateway: list[Proxy] = []

    @property
    def all(self) -> list[Proxy]:
        return [*self.brokers, *self.gateway]

    async def lay(self, stage: Stage) -> None:
        """Put them between, on the hosts of those that they stand before."""
        rng = random.Random(stage.options.seed)  # noqa: S311  # It has to repeat.
        self.brokers = [
            Proxy((one.host.address, one.port), NatsConversation, host=one.host.address, rng=rng)
            for one in stage.brokers.all
        ]
        host, _, port = stage.gateway.address.rpartition(":")
        self.gateway = [Proxy((host, int(port)), HttpConversation, host=host, rng=rng)]
        for proxy in self.all:
            await stage.nursery.start(proxy.run)
        stage.nats_urls = [f"nats://{proxy.host}:{proxy.port}" for proxy in self.brokers]
        stage.gateway_url = f"http://{host}:{self.gateway[0].port}"

    @contextmanager
    def ruled(self, proxies: list[Proxy], rule: Rule) -> Iterator[None]:
        for proxy in proxies:
            proxy.rule = rule
        try:
            yield
        finally:
            for proxy in proxies:
                proxy.rule = forward


WIRES = Wires()  # One campaign runs at a time.


# --- F13: lost answers ---


def _lose(what: str, part: Part, proxies: Callable[[], list[Proxy]]) -> Strike:
    """Lose every third frame of a part for a while."""

    async def strike(stage: Stage) -> None:
        rule = EveryNth(LOST_EVERY, part, DROP)
        await _under(stage, f"every 3rd {what} is lost", proxies(), rule)
        stage.counts[f"{what}: lost"] += rule.fired

    return strike


async def _under(stage: Stage, name: str, proxies: list[Proxy], rule: "_Counting") -> None:
    """Let a rule hold for a while, and see how many orders are accepted meanwhile."""
    async with stage.fault(name) as fault:
        with WIRES.ruled(proxies, rule):
            await _last(stage, name, fault)
        if not rule.fired:
            raise NotFiredError("nothing of the kind passed")


async def _last(stage: Stage, name: str, fault: Fault) -> None:
    accepted = len(stage.load.accepted)
    fault.struck()
    await trio.sleep(LASTS_S)
    rate = (len(stage.load.accepted) - accepted) / LASTS_S
    stage.notes.append(f"{name}: {rate:.1f} orders/s accepted meanwhile")


# --- F12, as far as it is not packets ---


class _Twice:
    """A rule: all of some parts is said twice."""

    def __init__(self, *parts: Part) -> None:
        self.fired = 0
        self._parts = parts

    def __call__(self, passing: Passing) -> Fate:
        if passing.part not in self._parts:
            return FORWARD
        self.fired += 1
        return DUPLICATE


_Counting = EveryNth | _Twice


async def double_deliveries(stage: Stage) -> None:
    rule = _Twice(Part.DELIVERY, Part.PUB_ACK, Part.ANSWER)
    await _under(stage, "all that the brokers say arrives twice", WIRES.brokers, rule)
    stage.counts["messages to us: doubled"] += rule.fired


async def double_publishes(stage: Stage) -> None:
    rule = _Twice(Part.PUBLISH)
    await _under(stage, "all that is published arrives twice", WIRES.brokers, rule)
    stage.counts["publishes: doubled"] += rule.fired


async def spikes(stage: Stage) -> None:
    rule = EveryNth(SPIKE_EVERY, Part.DELIVERY, Fate(delay_s=SPIKE_S))
    await _under(stage, "now and then all waits for 2 s", WIRES.brokers, rule)
    stage.counts["spikes of 2 s"] += rule.fired


async def _line(stage: Stage, name: str, line: Line) -> None:
    async with stage.fault(name) as fault:
        for proxy in WIRES.all:
            proxy.line = line
        try:
            await _last(stage, name, fault)
        finally:
            for proxy in WIRES.all:
                proxy.line = Line()


async def slow(stage: Stage) -> None:
    await _line(stage, "100 +- 50 ms each way", LATENCY)


async def narrow(stage: Stage) -> None:
    await _line(stage, "1 Mbit/s", NARROW)


async def silence(stage: Stage) -> None:
    async with stage.fault(f"brokers that are there and silent for {SILENT_S:g} s") as fault:
        for proxy in WIRES.brokers:
            proxy.hush()
        fault.struck()
        try:
            await trio.sleep(SILENT_S)
        finally:
            for proxy in WIRES.brokers:
                proxy.speak()


async def half_close(stage: Stage) -> None:
    async with stage.fault("connections that end one way") as fault:
        if not sum(proxy.half_close(Toward.SERVER) for proxy in WIRES.brokers):
            raise NotFiredError("there is no connection")
        fault.struck()


async def cut(stage: Stage) -> None:
    async with stage.fault("all connections are cut") as fault:
        if not sum(proxy.cut_all() for proxy in WIRES.all):
            raise NotFiredError("there is no connection")
        fault.struck()


# --- F2: the crash points ---


async def sweep(stage: Stage) -> None:
    """The whole sweep, on grounds of its own; what it finds, the campaign has found."""
    stage.load.rate = RATE_BESIDE
    began_ms = time.time_ns() // 1_000_000
    report = await run_sweep(stage.directory / "sweep", pairs=PAIRS, seed=stage.options.seed)
    stage.planned = report.existing + PAIRS * len(report.coverage)
    for what in _kills(report):
        fault = Fault(what, from_strike=False, healed_ms=time.time_ns() // 1_000_000)
        fault.at_ms = began_ms
        stage.faults.append(fault)
    stage.findings += report.findings
    stage.notes += _sweep_notes(report)
    stage.counts["orders swept"] += report.orders
    stage.counts["kills in all"] += report.kills
    stage.counts["logs audited"] += report.audits


def _kills(report: SweepReport) -> Iterator[str]:
    for name, one in report.coverage.items():
        yield from (f"{name}: killed at a point" for _ in range(one.covered))
        yield from (f"{name}: killed at a pair of points" for _ in range(one.pairs))


def _sweep_notes(report: SweepReport) -> Iterator[str]:
    for name, one in report.coverage.items():
        yield f"{name}: {one.covered}/{one.existing} points and {one.rare} rare ones, {one.pairs} pairs"


ROWS = (
    Row(
        "F2",
        "crash points: kill -9 before and after every frame of an order, and again while it recovers",
        goal="all points covered, 0 lost, 0 charged twice",
        run=sweep,
        faults=0,
        brokers=frozenset({1}),
        in_mix=False,
    ),
    Row(
        "F12P",
        "doubled messages, a slow, narrow, silent or half-closed way",
        goal="0 lost, 0 charged twice with everything delivered twice",
        strikes=(
            double_deliveries,
            slow,
            narrow,
            cut,
            double_publishes,
            spikes,
            silence,
            half_close,
        ),
        faults=8,
        wire=WIRES.lay,
        in_mix=False,
    ),
    Row(
        "F13",
        "every third answer is lost: of the log, of its deliveries, of the provider",
        goal="0 charged twice in >= 10,000 lost answers",
        strikes=(
            _lose("answer of the provider", Part.ANSWER, lambda: WIRES.gateway),
            _lose("delivery", Part.DELIVERY, lambda: WIRES.brokers),
            _lose("answer to a publish", Part.PUB_ACK, lambda: WIRES.brokers),
        ),
        faults=6,
        wire=WIRES.lay,
        in_mix=False,
    ),
)
