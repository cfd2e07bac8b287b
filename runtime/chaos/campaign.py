"""A campaign of one row: start everything, let customers in, break things, heal, wait for quiet, stop, audit.

A run proves something only if its faults happened: one whose faults did not is `unknown`, whatever the audit says.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import msgspec
import trio

from runtime.audit import Evidence, Finding, Report, Verdict, judge
from runtime.audit.picture import NoPlotsError, draw
from runtime.chaos import outcome
from runtime.chaos.brokers import Brokers
from runtime.chaos.evidence import gather
from runtime.chaos.gateway import GatewayProcess
from runtime.chaos.http import Http
from runtime.chaos.instance import Instance
from runtime.chaos.load import Load
from runtime.chaos.outcome import Outcome
from runtime.chaos.row import Options, Row, Setting
from runtime.chaos.shopping import STOCK
from runtime.chaos.stage import Stage

QUIET_S = 120.0  # From the last healing until every accepted order is terminal.
WARM_S = 60.0  # Until the first order is accepted on a machine that is busy.
KILLED = -9


async def run_row(row: Row, options: Options) -> Outcome:
    """One campaign. All it starts has ended when it returns, however it returns."""
    options.directory.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    async with row.setting(options) as setting, staged(row, options, setting) as stage:
        is_quiet = await _play(stage)
        evidence = await gather(stage, is_quiet=is_quiet)
        report = judge(evidence)
        ended = _sum_up(stage, report, time.monotonic() - began_s)
        _write_down(stage, report, ended)
        if options.draws:
            _draw(evidence, ended, options.directory / "orders.svg")
        return ended


@asynccontextmanager
async def staged(row: Row, options: Options, setting: Setting) -> AsyncIterator[Stage]:
    """The stage with everything on it, not started yet; in the end nothing of it runs."""
    directory, http = options.directory, Http()
    brokers = Brokers(setting.grounds, directory, http, sync_interval=options.sync_interval)
    gateway = GatewayProcess(directory, http, setting.gateway_host)
    environ = {"STREAM_REPLICAS": str(brokers.replicas), **setting.environ, **options.environ}
    instance = Instance(directory, http, environ, host=setting.instance_host)
    load = Load(
        http,
        lambda: stage.instance.http,
        directory / "journal.jsonl",
        seed=options.seed,
        rate=options.rate,
    )
    async with trio.open_nursery() as nursery:
        stage = Stage(
            row,
            options,
            setting,
            nursery,
            http,
            brokers,
            gateway,
            instance,
            load,
            Random(options.seed),  # noqa: S311  # It has to repeat.
            nats_urls=brokers.urls,
            gateway_url=gateway.url,
            instances=[instance],
        )
        try:
            yield stage
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for one in stage.instances:
                    await one.end()
                await gateway.kill()
                await brokers.kill()
                await http.aclose()
                load.close()


async def _play(stage: Stage) -> bool:
    """From nothing to quiet; True if it became quiet in the end."""
    row, options = stage.row, stage.options
    await open_stage(stage)
    ends_s = trio.current_time() + options.for_s
    await _strike(stage)
    await trio.sleep_until(ends_s)
    await stage.load.wait_begun(options.orders)
    await _heal(stage)
    is_quiet = await _quieten(stage)
    if row.judge is not None:
        await row.judge(stage)
    code = await stage.instance.stop()
    if code != 0:
        stage.findings.append(f"the instance ended with {code} when it was asked to stop")
    return is_quiet


async def open_stage(stage: Stage) -> None:
    """Start everything, and let the first customers in."""
    stage.brokers.start()
    stage.gateway.start()
    await stage.brokers.wait_serving()
    await stage.gateway.wait_serving()
    if stage.row.wire is not None:
        await stage.row.wire(stage)
    instance = stage.instance
    instance.environ |= {
        "NATS_URL": ",".join(stage.nats_urls),
        "PAYMENT_GATEWAY_URL": stage.gateway_url,
    }
    instance.start()
    stage.nursery.start_soon(instance.keep)
    await instance.wait_ready()
    await stage.load.stock(instance.admin, STOCK)
    stage.nursery.start_soon(stage.load.run)
    if stage.row.watch is not None:
        stage.nursery.start_soon(stage.row.watch, stage)
    if await stage.load.wait_accept(0, WARM_S) is None:
        stage.doubts.append(f"no order was accepted within {WARM_S:g} s of the start")


async def _strike(stage: Stage) -> None:
    """Let the faults happen, one after the other, each with recovery and a quiet period after it."""
    row, options = stage.row, stage.options
    stage.planned = row.faults if options.faults is None else options.faults
    try:
        if row.run is not None:
            await row.run(stage)
            return
        for number in range(stage.planned):
            await stage.pause()
            await row.strikes[number % len(row.strikes)](stage)
    except trio.TooSlowError as error:
        stage.doubts.append(f"the faults broke off after {stage.fired}: {error!r}")


async def _heal(stage: Stage) -> None:
    """Nothing is broken any more."""
    for one in stage.instances:
        one.process.resume()
    if not stage.gateway.process.running:
        stage.gateway.start()
    stage.gateway.process.resume()
    await stage.gateway.wait_serving()
    await stage.gateway.behave()
    try:
        await stage.brokers.heal()
    except trio.TooSlowError:
        stage.findings.append("the brokers did not get well when nothing was broken any more")


async def _quieten(stage: Stage) -> bool:
    """Serve everybody to the end, and wait until nothing is under way; False if that took too long."""
    load = stage.load
    await load.wait_accept(trio.current_time(), QUIET_S)
    if not await load.finish(QUIET_S):
        stage.findings.append(
            f"{load.under_way} customers had no definite answer {QUIET_S:g} s after the last fault"
        )
    is_quiet = await load.wait_quiet(stage.instance.admin, QUIET_S)
    if not is_quiet:
        stage.findings.append(f"orders were still open {QUIET_S:g} s after the last fault")
    return is_quiet


def _sum_up(stage: Stage, report: Report, took_s: float) -> Outcome:
    lost, doubled = int(report.figures["lost"]), int(report.figures["double_charged"])
    broken = [
        *([f"{lost} lost"] if lost else []),
        *([f"{doubled} charged twice"] if doubled else []),
        *(
            f"{result.invariant} does not hold ({len(result.findings)}): {_first(result.findings)}"
            for result in report
            if result.verdict is Verdict.FAILED
        ),
        *stage.findings,
    ]
    doubts = [
        *(
            f"{result.invariant} is undecided"
            for result in report
            if result.verdict is Verdict.UNKNOWN
        ),
        *stage.doubts,
    ]
    ending, reasons = outcome.judge(
        planned=stage.planned,
        fired=stage.fired,
        accepted=len(stage.load.accepted),
        broken=broken,
        doubts=doubts,
    )
    return Outcome(
        row=stage.row.id,
        name=stage.row.name,
        goal=stage.row.goal,
        brokers=stage.brokers.replicas,
        seed=stage.options.seed,
        planned=stage.planned,
        fired=stage.fired,
        began=stage.load.begun,
        accepted=len(stage.load.accepted),
        lost=lost,
        double_charged=doubled,
        recoveries_s=tuple(round(one, 3) for one in stage.recoveries_s),
        not_recovered=stage.not_recovered,
        took_s=round(took_s, 1),
        ending=ending,
        reasons=tuple(reasons),
        invariants={result.invariant: str(result.verdict) for result in report},
        notes=tuple(_notes(stage)),
    )


def _first(findings: Sequence[Finding]) -> str:
    return f"{findings[0].subject}: {findings[0].seen}" if findings else ""


def _notes(stage: Stage) -> Iterator[str]:
    yield from stage.notes
    for what, times in stage.counts.items():
        yield f"{what}: {times}"
    ends = Counter(code for one in stage.instances for code in one.ends if code != KILLED)
    for code, times in ends.items():
        yield f"an instance ended by itself with {code}: {times}"
    for code, times in sorted(stage.load.answers.items()):
        yield f"answers of {code or 'nobody'}: {times}"


def _draw(evidence: Evidence, ended: Outcome, path: Path) -> None:
    title = f"{ended.row} on {ended.brokers}, {ended.name}: {ended.ending}"
    with suppress(NoPlotsError):  # Nobody asked for a picture more than for the figures.
        draw(evidence, path, title)


def _write_down(stage: Stage, report: Report, ended: Outcome) -> None:
    """Leave what was seen where the run's other files are."""
    directory, encode = stage.directory, msgspec.json.Encoder().encode_lines
    (directory / "marks.jsonl").write_bytes(encode(stage.marks()))
    (directory / "audit.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    (directory / "outcome.json").write_bytes(msgspec.json.format(msgspec.json.encode(ended)))
