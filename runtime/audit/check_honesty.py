"""Honesty: a run in which nothing could go wrong has proved nothing (I12)."""

from collections import Counter
from collections.abc import Iterator

from runtime.audit.check import judged, unchecked, undecided
from runtime.audit.evidence import Evidence
from runtime.audit.journal import Told
from runtime.audit.report import Result


def check_honesty(evidence: Evidence) -> Result:
    """I12: unknown, not passed, if a kind of request never succeeded, a planned fault or a `sometimes` never happened.

    An empty log is unknown whatever else there is.
    """
    rule = "requests of each kind succeeded, all planned faults fired, each `sometimes` happened"
    checked = len(evidence.planned) + len(evidence.sometimes) + len(evidence.journal)
    doubts = list(_doubts(evidence))
    if doubts:
        return undecided("I12", rule, doubts, checked)
    if not checked:
        return unchecked("I12", rule, "the journal, the planned faults, the `sometimes` counts")
    return judged("I12", rule, checked, ())


def _doubts(evidence: Evidence) -> Iterator[str]:
    if not evidence.history.orders:
        yield "there is no order in the log"
    tried = {one.op for one in evidence.journal}
    done = {one.op for one in evidence.journal if one.outcome is Told.ACCEPTED}
    yield from (f"no {op} ever succeeded" for op in sorted(tried - done))
    fired = Counter(mark.row for mark in evidence.marks)
    for row, planned in evidence.planned.items():
        if fired[row] < planned:
            yield f"{row}: {fired[row]} of {planned} planned faults fired"
    yield from (f"it never happened: {name}" for name, n in evidence.sometimes.items() if not n)
