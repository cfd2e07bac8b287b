"""What came of a campaign: its figures, its verdict with the reason, and the one line that says so. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Ending(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row on one kind of ground. `recoveries_s` is from each fault (or its healing) to the next accepted order."""

    row: str
    name: str
    goal: str
    brokers: int
    seed: int
    planned: int
    fired: int = 0
    began: int = 0
    accepted: int = 0
    lost: int = 0
    double_charged: int = 0
    recoveries_s: Sequence[float] = ()
    not_recovered: int = 0
    took_s: float = 0.0
    ending: Ending = Ending.UNKNOWN
    reasons: Sequence[str] = ()
    invariants: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def bound(self) -> float:
        """With 95 % confidence, no more of the faults than this share lose or double anything (rule of three)."""
        return bound(self.fired, self.lost + self.double_charged)

    @property
    def line(self) -> str:
        """Everything in one line."""
        p50, p95, most = (percentile(self.recoveries_s, share) for share in (50, 95, 100))
        return (
            f"{self.row} on {self.brokers}: {self.ending}"
            f" | faults {self.fired}/{self.planned} | accepted {self.accepted}"
            f" | lost {self.lost} | double-charged {self.double_charged}"
            f" | recovery p50 {_s(p50)} p95 {_s(p95)} max {_s(most)}"
            f" | 95 % bound {self.bound:.3g} | {self.name}"
            + (f" | {'; '.join(self.reasons)}" if self.reasons else "")
        )


def judge(
    *, planned: int, fired: int, accepted: int, broken: Sequence[str], doubts: Sequence[str]
) -> tuple[Ending, list[str]]:
    """The verdict and its reasons: what is broken fails, and what did not happen cannot pass."""
    if broken:
        return Ending.FAILED, list(broken)
    doubts = list(doubts)
    if not accepted:
        doubts.insert(0, "no order was ever accepted")
    if not planned:
        doubts.insert(0, "no faults were planned")
    if fired < planned:
        doubts.insert(0, f"only {fired} of {planned} planned faults happened")
    return (Ending.UNKNOWN, doubts) if doubts else (Ending.PASSED, [])


def bound(trials: int, failures: int = 0) -> float:
    """The 95 % upper bound of a failure's chance after so many trials without one: 3/n; 1 where it says nothing."""
    return 1.0 if failures or trials < 3 else 3 / trials


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed; not a number where there are none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _s(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds:.2f} s"
