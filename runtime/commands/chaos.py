"""`orders chaos`: campaigns on real processes, one line a row."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import trio
from rich.console import Console
from rich.table import Table

from runtime import logs
from runtime.chaos.campaign import run_row
from runtime.chaos.outcome import Ending, Outcome
from runtime.chaos.row import Options, Row
from runtime.chaos.rows import all_rows
from runtime.config_variables import LogLevel

EXIT_FAILED = 1
EXIT_UNKNOWN = 3  # Nothing was seen to be broken, and not enough happened to say that nothing is.


class NoSuchRowError(Exception):
    """The message says what there is."""


def chosen_rows(ids: Sequence[str], brokers: int) -> list[Row]:
    """The rows of these ids; of none given, all that apply to so many brokers.

    Raises:
        NoSuchRowError: one is not there, or not for so many brokers.
    """
    rows = all_rows()
    if unknown := [one for one in ids if one.upper() not in rows]:
        raise NoSuchRowError(f"no row {', '.join(unknown)}; there are: {', '.join(rows)}")
    if not ids:
        return [row for row in rows.values() if brokers in row.brokers]
    chosen = [rows[one.upper()] for one in ids]
    if unfit := [row.id for row in chosen if brokers not in row.brokers]:
        raise NoSuchRowError(f"{', '.join(unfit)}: not with --brokers {brokers}; --list says why")
    return chosen


def list_rows() -> None:
    """What can be broken, and what of it cannot be broken here."""
    table = Table("row", "what happens", "faults", "brokers", "goal", "needs")
    for row in all_rows().values():
        brokers = " or ".join(map(str, sorted(row.brokers)))
        table.add_row(row.id, row.name, str(row.faults), brokers, row.goal, row.missing())
    Console().print(table)


def chaos(rows: Sequence[Row], options: Options, *, keep: bool, as_json: bool) -> int:
    """Run one campaign after the other, each in a directory of its own; returns the exit code."""
    logs.configure(LogLevel.ERROR)
    outcomes = []
    for row in rows:
        directory = options.directory / f"{row.id}-on-{options.brokers}"
        outcome = _run(row, replace(options, directory=directory))
        outcomes.append(outcome)
        if not as_json:
            print(outcome.line, flush=True)
            for note in outcome.notes:
                print(f"    {note}", flush=True)
        if not keep and outcome.ending is Ending.PASSED:
            shutil.rmtree(directory, ignore_errors=True)
        elif not keep:
            print(f"kept for you to look at: {directory}", file=sys.stderr)
    if as_json:
        told = [
            {"line": one.line, "bound": one.bound, **msgspec.to_builtins(one)} for one in outcomes
        ]
        print(json.dumps({"seed": options.seed, "rows": told}))
    return exit_code(outcomes)


def make_directory(out: Path | None) -> Path:
    """Where the runs are written."""
    if out is None:
        return Path(tempfile.mkdtemp(prefix="orders-chaos-"))
    out.mkdir(parents=True, exist_ok=True)
    return out.absolute()


def new_seed() -> int:
    return int.from_bytes(os.urandom(3))


def _run(row: Row, options: Options) -> Outcome:
    if missing := row.missing():
        return not_run(row, options, missing)
    print(f"{row.id} on {options.brokers}: {row.name}, seed {options.seed}", file=sys.stderr)
    return trio.run(run_row, row, options)


def not_run(row: Row, options: Options, why: str) -> Outcome:
    """A row that could not even begin proves nothing."""
    planned = row.faults if options.faults is None else options.faults
    return Outcome(
        row=row.id,
        name=row.name,
        goal=row.goal,
        brokers=options.brokers,
        seed=options.seed,
        planned=planned,
        reasons=(f"not run: {why}",),
    )


def exit_code(outcomes: Sequence[Outcome]) -> int:
    endings = {outcome.ending for outcome in outcomes}
    if Ending.FAILED in endings:
        return EXIT_FAILED
    return EXIT_UNKNOWN if Ending.UNKNOWN in endings else 0
