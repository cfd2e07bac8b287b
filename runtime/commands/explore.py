"""`orders explore`: many simulated runs with faults, audited; or one of them, told line by line or made small."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from runtime.explore import Outcome, Schedule, Summary, draw, explore, run_schedule, shrink
from runtime.explore.play import play
from runtime.explore.timeline import tell

FAILED = 1
NEVER_SEEN = 3
"""Nothing was found, but something that should happen sometimes never did: the search says too little."""


def run_explore(
    seeds: int, first: int, jobs: int, limit_s: float | None, *, shrinks: bool, as_json: bool
) -> int:
    """Explore, print what was seen, and return the exit code."""
    err = Console(stderr=True)

    def show(outcome: Outcome) -> None:
        if not outcome.holds:
            err.print(f"seed {outcome.schedule.seed} fails: {_words(outcome)}", highlight=False)

    every = range(first, first + seeds)
    summary = explore(every, jobs=jobs, limit_s=limit_s or math.inf, on_outcome=show)
    if as_json:
        print(json.dumps(_figures(summary, first)))
        return _code(summary)
    _print_summary(summary, first)
    for outcome in summary.failures[:1] if shrinks else summary.failures:
        print(f"\n{_failure(outcome)}")
        if shrinks:
            print(f"\n{_shrunk(outcome)}")
    return _code(summary)


def _code(summary: Summary) -> int:
    if summary.failed:
        return FAILED
    return NEVER_SEEN if summary.never_seen else 0


def run_replay(seed: int, *, shrinks: bool) -> int:
    """Play one seed again, tell it, and return the exit code."""
    schedule = draw(seed)
    outcome = run_schedule(schedule)
    if shrinks and not outcome.holds:
        print(_shrunk(outcome))
        return FAILED
    print(f"{schedule}\n")
    print(*tell(play(schedule)), sep="\n")
    print(f"\n{outcome.digest} is its history")
    print("every invariant holds" if outcome.holds else _failure(outcome))
    return 0 if outcome.holds else FAILED


def _shrunk(outcome: Outcome) -> str:
    """The smallest schedule found that breaks one of the same invariants, and its story."""
    broken = {finding.invariant for finding in outcome.findings}

    def fails(schedule: Schedule) -> bool:
        return bool(broken & {finding.invariant for finding in run_schedule(schedule).findings})

    small = shrink(outcome.schedule, fails)
    story = "\n".join(tell(play(small)))
    seen = _findings(run_schedule(small))
    return f"the least that fails the same way:\n  {small}\n\n{small!r}\n\n{story}\n{seen}"


def _print_summary(summary: Summary, first: int) -> None:
    console = Console()
    table = Table(title="orders explore", show_header=False)
    table.add_row("seeds", f"{summary.seeds} from {first}; {summary.seeds_per_s:.1f} a second")
    table.add_row(
        "orders", f"{summary.orders} in {summary.virtual_s / 3600:.1f} hours of virtual time"
    )
    table.add_row("faults fired", f"{summary.fired.total()}: {_counts(summary.fired)}")
    table.add_row("invariants, and times checked", _counts(summary.checked))
    table.add_row("met on the way", _counts(summary.seen, "\n"))
    if summary.never_seen:
        table.add_row("never met", "\n".join(summary.never_seen))
    failed = ", ".join(map(str, summary.failed)) or "none"
    table.add_row("seeds that failed", failed)
    console.print(table)


def _figures(summary: Summary, first: int) -> dict[str, Any]:
    failures = [_described(outcome) for outcome in summary.failures]
    return {
        "first": first,
        "seeds": summary.seeds,
        "seeds_per_s": round(summary.seeds_per_s, 2),
        "orders": summary.orders,
        "virtual_s": round(summary.virtual_s, 3),
        "fired": dict(summary.fired),
        "checked": dict(summary.checked),
        "seen": dict(summary.seen),
        "never_seen": summary.never_seen,
        "failed": summary.failed,
        "failures": failures,
    }


def _described(outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": outcome.schedule.seed,
        "schedule": asdict(outcome.schedule),
        "findings": [
            {"invariant": one.invariant, "subject": one.subject, "seen": one.seen}
            for one in outcome.findings
        ],
    }


def _failure(outcome: Outcome) -> str:
    seed = outcome.schedule.seed
    replay = f"orders explore --replay {seed} [--shrink]"
    return f"{outcome.schedule}\n{_findings(outcome)}\nsee it again: {replay}"


def _findings(outcome: Outcome) -> str:
    lines = (f"  {one.invariant} {one.subject}: {one.seen}" for one in outcome.findings)
    return "\n".join(("broken:", *lines))


def _words(outcome: Outcome) -> str:
    invariants: Iterable[str] = sorted({finding.invariant for finding in outcome.findings})
    return f"{', '.join(invariants)} ({len(outcome.findings)} findings)"


def _counts(counts: Counter[str], between: str = ", ") -> str:
    return between.join(f"{name} {times}" for name, times in sorted(counts.items()))
