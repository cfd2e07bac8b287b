"""How a check reports: what every module of checks is written with."""

from collections.abc import Sequence

from runtime.audit.report import Finding, Result, Verdict


def judged(
    invariant: str,
    rule: str,
    checked: int,
    findings: Sequence[Finding],
    notes: Sequence[str] = (),
) -> Result:
    """Failed where there are findings, else passed."""
    verdict = Verdict.FAILED if findings else Verdict.PASSED
    return Result(invariant, rule, verdict, checked, tuple(findings), tuple(notes))


def undecided(invariant: str, rule: str, reasons: Sequence[str], checked: int = 0) -> Result:
    """Looked at, and not to be decided, for these reasons."""
    return Result(invariant, rule, Verdict.UNKNOWN, checked, notes=tuple(reasons))


def unchecked(invariant: str, rule: str, needs: str, notes: Sequence[str] = ()) -> Result:
    """Not looked at, or not wholly; `needs` says what would be needed."""
    return Result(invariant, rule, Verdict.NOT_CHECKED, notes=tuple(notes), needs=needs)
