"""`orders audit`: reads the log, holds it against whatever other evidence is given, and says what it found.

What clients and watchers wrote down is read before the log, and the provider's ledger after it: so beside a running
instance everything that one source claims has had its time to arrive in the next.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.audit import (
    Attempt,
    Evidence,
    Finding,
    Mark,
    Report,
    Result,
    Span,
    Verdict,
    judge,
    read_journal,
    read_marks,
    read_spans,
)
from runtime.audit.lines import LinesError, read_lines
from runtime.audit.picture import SUFFIXES, NoPlotsError, draw
from runtime.audit.reading import read_history, read_views
from runtime.commands.client import open_client
from runtime.commands.output import write_json
from runtime.commands.running import tell
from runtime.config_variables import Config
from runtime.embedded import EmbeddedServer
from runtime.reading import open_broker
from runtime.simulator_ledger import Line
from runtime.system import shard_counts

EXIT_CODES = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.UNKNOWN: 3}
SHOWN_MAX = 5  # Findings of one invariant on a screen.
LISTED_MAX = 1_000  # ... and in JSON.
LOOK_S = 1.0
COLOURS = {
    Verdict.PASSED: "green",
    Verdict.FAILED: "bold red",
    Verdict.UNKNOWN: "yellow",
    Verdict.NOT_CHECKED: "dim",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for. `is_running` None: find out."""

    journal: Path | None = None
    ledger: Path | None = None
    marks: Path | None = None
    traces: Sequence[Path] = ()
    logs: Sequence[Path] = ()
    picture: Path | None = None
    is_running: bool | None = None
    is_complete: bool = False
    is_outage_known: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class _Files:
    """What was written down beside the system."""

    journal: Sequence[Attempt]
    marks: Sequence[Mark]
    spans: Sequence[Span] | None


async def audit_log(config: Config, wanted: Wanted) -> None:
    """Audit, report, draw.

    Raises:
        SystemExit: the code that the verdict deserves, or 2 for a file that is not what it should be.
    """
    try:
        evidence = await gather(config, wanted)
        report = judge(evidence)
        if wanted.picture is not None:
            orders = int(report.figures["orders"])
            title = f"{report.verdict}: {orders:,} orders, {len(evidence.marks)} faults"
            draw(evidence, wanted.picture, title)
    except (LinesError, NoPlotsError, OSError) as error:
        tell(f"orders: {error}")
        sys.exit(2)
    if wanted.as_json:
        await write_json(as_json(report))
    else:
        show(report, Console())
    sys.exit(EXIT_CODES[report.verdict])


async def gather(config: Config, wanted: Wanted) -> Evidence:
    """Read everything there is, each source before those that must know more."""
    is_running = wanted.is_running
    if is_running is None:
        is_running = await _is_running(config)
    files = _Files(
        journal=tuple(read_journal(wanted.journal)) if wanted.journal else (),
        marks=tuple(read_marks(wanted.marks)) if wanted.marks else (),
        spans=_read_traces(wanted.traces) if wanted.traces else None,
    )
    async with open_broker(config) as log:
        keeps_spans = files.spans is not None
        history = await read_history(log, shard_counts(config), keeps_spans=keeps_spans)
        views = await read_views(log, history.orders.by_id)
    if wanted.is_running is None and not is_running and not history.saved.is_current:
        tell("the last instance was not stopped in order, so orders may be on their way: --running")
        is_running = True
    return Evidence(
        history,
        journal=files.journal,
        ledger=_read_ledger(config, wanted),
        views=views,
        marks=files.marks,
        spans=files.spans,
        logs={str(path): _lines_of(path) for path in wanted.logs} if wanted.logs else None,
        is_quiescent=not is_running,
        is_complete=wanted.is_complete,
        is_outage_known=wanted.is_outage_known,
    )


def check_picture(path: Path) -> None:
    """Refuse (ValueError) a picture that could not be drawn."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path.name} must end in {' or '.join(SUFFIXES)}")


async def _is_running(config: Config) -> bool:
    """Whether an instance is at work on this log, as far as one can see from here."""
    if config.embedded and config.nats_store_dir.exists():
        return EmbeddedServer(config.nats_store_dir).is_in_use()
    try:
        async with open_client(config.http_bind) as client:
            return (await client.get("/livez", timeout=LOOK_S)).is_success
    except httpx.TransportError:
        return False


def _read_ledger(config: Config, wanted: Wanted) -> Sequence[Line] | None:
    """The one that is given, or else the built-in simulator's."""
    if wanted.ledger is not None:
        return tuple(read_lines(wanted.ledger, Line))
    if config.payment_gateway_url is None and config.simulator_ledger.exists():
        return tuple(read_lines(config.simulator_ledger, Line))
    return None


def _read_traces(paths: Sequence[Path]) -> Sequence[Span]:
    return [span for path in paths for span in read_spans(path)]


def _lines_of(path: Path) -> Iterator[str]:
    with path.open(errors="replace") as file:
        yield from file


# --- telling ---


def as_json(report: Report) -> Mapping[str, Any]:
    """The report for machines. Of very many findings the first thousand are listed, and all are counted."""
    return {
        "verdict": report.verdict,
        "figures": report.figures,
        "invariants": [
            {
                "invariant": one.invariant,
                "rule": one.rule,
                "verdict": one.verdict,
                "checked": one.checked,
                "found": len(one.findings),
                "findings": one.findings[:LISTED_MAX],
                "notes": one.notes,
                "needs": one.needs or None,
            }
            for one in report
        ],
    }


def show(report: Report, console: Console) -> None:
    """The report for people."""
    table = Table(title="orders audit", title_justify="left", show_lines=False)
    table.add_column("")
    table.add_column("what must hold", overflow="fold")
    table.add_column("checked", justify="right")
    table.add_column("verdict", no_wrap=True)
    for result in report:
        rule = Text(result.rule)
        for remark in _remarks(result):
            rule.append(f"\n{remark}", style="dim")
        verdict = Text(str(result.verdict), style=COLOURS[result.verdict])
        table.add_row(
            result.invariant, rule, f"{result.checked:,}" if result.checked else "", verdict
        )
    console.print(table)
    for result in report:
        _show_findings(result, console)
    said = ", ".join(f"{name} {count:,.0f}" for name, count in report.figures.items())
    console.print(Text(said.replace("_", " ")), soft_wrap=True)
    console.print(Text(f"verdict: {report.verdict}", style=COLOURS[report.verdict]))


def _remarks(result: Result) -> Iterator[str]:
    yield from result.notes
    if result.needs:
        yield f"needs {result.needs}"


def _show_findings(result: Result, console: Console) -> None:
    for finding in result.findings[:SHOWN_MAX]:
        console.print(Text(_said(finding), style="red"), soft_wrap=True)
    more = len(result.findings) - SHOWN_MAX
    if more > 0:
        console.print(Text(f"{result.invariant} ... and {more:,} more", style="red"))


def _said(finding: Finding) -> str:
    where = f" (record {finding.seq})" if finding.seq else ""
    return f"{finding.invariant} {finding.subject}: {finding.seen}{where}"
