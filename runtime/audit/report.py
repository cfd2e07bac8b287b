"""What an audit says: a verdict for each invariant, and what was seen against it."""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = (
        "unknown"  # Looked at, and not to be decided: nothing happened that could have failed.
    )
    NOT_CHECKED = "not checked"  # For want of evidence; the result says of which.


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that must not be. `subject` is an order, a stock item or a shard; `seq` is where it was seen."""

    invariant: str
    subject: str
    seen: str
    seq: int = 0


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One invariant. `checked` is how many things it was held against; `notes` are no failures, but worth knowing."""

    invariant: str
    rule: str
    verdict: Verdict
    checked: int = 0
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    needs: str = ""


class Report(msgspec.Struct, frozen=True):
    """The whole audit. `figures` are counts by name, for one line a run."""

    results: tuple[Result, ...]
    figures: Mapping[str, float]

    @property
    def verdict(self) -> Verdict:
        """Failed if anything failed; passed if all that could be checked did."""
        verdicts = {result.verdict for result in self.results} - {Verdict.NOT_CHECKED}
        if Verdict.FAILED in verdicts:
            return Verdict.FAILED
        return Verdict.PASSED if verdicts == {Verdict.PASSED} else Verdict.UNKNOWN

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for result in self.results for finding in result.findings)

    @property
    def failed(self) -> tuple[str, ...]:
        """The invariants that do not hold."""
        return tuple(one.invariant for one in self.results if one.verdict is Verdict.FAILED)

    def __getitem__(self, invariant: str) -> Result:
        return next(result for result in self.results if result.invariant == invariant)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)
