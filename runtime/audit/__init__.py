"""The auditor: holds what the log says against the invariants, and against whatever other evidence there is.

```python
history = History(counts, snapshots)
history.add_all(entries)  # The log, oldest first.
report = audit(history, journal=read_journal(file), ledger=lines)
report.verdict, report.failed, report.findings, report["I4"].notes
```

Nothing here waits, and nothing here trusts the system: what it says is compared with what its clients and its payment
provider wrote down.

| module | what it holds |
|---|---|
| `history` | the log, taken in once; its books are `orders`, `shelves`, `owners`, `causes`, `saved`, `trails` |
| `automaton` | every legal life of an order, as a table |
| `evidence` | all that one audit is given |
| `check_orders`, `check_money`, `check_stock`, ... | the invariants, a pure function each |
| `report` | verdicts and findings |
| `journal`, `marks`, `spans`, `samples` | the files that clients, fault injectors, tracers and watchers write |
"""

from collections.abc import Callable, Iterable, Mapping

from runtime.audit.check_causes import check_causes
from runtime.audit.check_clients import check_answers, check_reads
from runtime.audit.check_health import check_health
from runtime.audit.check_honesty import check_honesty
from runtime.audit.check_money import check_books, check_charges, find_double_charged
from runtime.audit.check_orders import check_liveness, check_lives, check_none_lost, find_lost
from runtime.audit.check_stock import check_stock
from runtime.audit.check_traces import check_traces
from runtime.audit.check_views import check_views
from runtime.audit.evidence import TERMINAL_WITHIN_S, Evidence
from runtime.audit.history import History
from runtime.audit.journal import Attempt, Op, Told, read_journal
from runtime.audit.marks import Mark, read_marks
from runtime.audit.report import Finding, Report, Result, Verdict
from runtime.audit.samples import Sample
from runtime.audit.spans import Span, read_spans
from runtime.simulator_ledger import Line

__all__ = [
    "Attempt",
    "Evidence",
    "Finding",
    "History",
    "Mark",
    "Op",
    "Report",
    "Result",
    "Sample",
    "Span",
    "Told",
    "Verdict",
    "audit",
    "read_journal",
    "read_marks",
    "read_spans",
]

CHECKS: tuple[Callable[[Evidence], Result], ...] = (
    check_none_lost,
    check_charges,
    check_books,
    check_stock,
    check_lives,
    check_views,
    check_reads,
    check_answers,
    check_causes,
    check_traces,
    check_liveness,
    check_honesty,
    check_health,
)


def audit(
    history: History,
    *,
    journal: Iterable[Attempt] = (),
    ledger: Iterable[Line] | None = None,
    views: Mapping[str, bytes] | None = None,
    marks: Iterable[Mark] = (),
    spans: Iterable[Span] | None = None,
    logs: Mapping[str, Iterable[str]] | None = None,
    samples: Iterable[Sample] = (),
    quiescent: bool = True,
    complete: bool = False,
    outage_known: bool = False,
    clock_steady: bool = True,
    terminal_within_s: float = TERMINAL_WITHIN_S,
    planned: Mapping[str, int] | None = None,
    sometimes: Mapping[str, int] | None = None,
) -> Report:
    """Check every invariant that the evidence allows; what it says of the parameters stands at `Evidence`."""
    return judge(
        Evidence(
            history,
            journal=tuple(journal),
            ledger=None if ledger is None else tuple(ledger),
            views=views,
            marks=tuple(marks),
            spans=None if spans is None else tuple(spans),
            logs=logs,
            samples=tuple(samples),
            is_quiescent=quiescent,
            is_complete=complete,
            is_outage_known=outage_known,
            is_clock_steady=clock_steady,
            terminal_within_s=terminal_within_s,
            planned=planned or {},
            sometimes=sometimes or {},
        )
    )


def judge(evidence: Evidence) -> Report:
    """All checks on one evidence."""
    return Report(tuple(check(evidence) for check in CHECKS), figures_of(evidence))


def figures_of(evidence: Evidence) -> dict[str, float]:
    """The numbers that a run is summed up in."""
    history = evidence.history
    by_status: dict[str, float] = {}
    for _, one in history.orders:
        status = str(one.state.status)
        by_status[status] = by_status.get(status, 0) + 1
    return {
        "orders": len(history.orders),
        **dict(sorted(by_status.items())),
        "accepted": len(evidence.accepted),
        "lost": len(find_lost(evidence)),
        "double_charged": len(find_double_charged(evidence)),
        "facts": history.causes.facts,
        "records": history.records,
        "entries": history.entries,
        "faults": len(evidence.marks),
    }
