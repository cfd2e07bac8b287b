"""The demo's result: the checks and the measurements as one value."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.order_state import TERMINAL, OrderStatus
from runtime.demo_checks import (
    Case,
    charged,
    find_double_charged,
    find_lost,
    find_mischarged,
    find_stock_faults,
    join,
)
from runtime.demo_load import Level, Placed, Seen
from runtime.demo_plan import Plan
from runtime.simulator_ledger import Line


@dataclass(slots=True)
class Evidence:
    """What is collected while the demo runs. `disturbed_s`: Unix times of the first fault and the last recovery."""

    plan: Plan
    journal: list[Placed] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    stock: dict[str, Level] = field(default_factory=dict)
    ledger: Sequence[Line] = ()
    restarts: Counter[str] = field(default_factory=Counter)
    disturbed_s: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """In the words of `orders demo --json`."""

    placed: int
    confirmed: int
    rejected: int
    cancelled: int
    needs_attention: int
    lost: int  # Accepted, and now unknown or undecided.
    unplaced: int  # Never accepted, however often the customer asked.
    double_charged: int
    mischarged: int  # Orders whose money does not fit what became of them.
    charged_minor: int  # Captured less refunded, by the provider's ledger.
    confirmed_minor: int  # What the confirmed orders cost, by what was placed.
    stock_conserved: bool
    restarts: int
    orders_per_s: float
    p50_ms: float
    p99_ms: float
    undisturbed_p50_ms: float
    undisturbed_p99_ms: float
    answers_503: int
    unanswered: int  # Requests cut off, refused or timed out.
    rejected_by_reason: Mapping[str, int]
    cancels: Mapping[str, int]  # Those asked for: by why, or by why not.
    restarts_by_child: Mapping[str, int]
    rows_skipped: Mapping[str, int]
    stock_faults: Sequence[str]

    @property
    def is_good(self) -> bool:
        """Every order was accepted, decided, and paid for once and to the penny; every unit is accounted for."""
        wrong = self.unplaced + self.lost + self.double_charged + self.mischarged
        return not wrong and self.stock_conserved


def judge(evidence: Evidence) -> Verdict:
    plan, ledger = evidence.plan, evidence.ledger
    cases = join(plan.placings, evidence.journal, evidence.seen)
    statuses = Counter(case.status for case in cases)
    ended = [case.placed for case in cases if case.status in TERMINAL]
    undisturbed = [placed for placed in ended if not _overlaps(placed, evidence.disturbed_s)]
    confirmed = (case for case in cases if case.status == OrderStatus.CONFIRMED)
    stock_faults = find_stock_faults(cases, plan.opening, evidence.stock)
    return Verdict(
        placed=len(cases),
        confirmed=statuses[OrderStatus.CONFIRMED],
        rejected=statuses[OrderStatus.REJECTED],
        cancelled=statuses[OrderStatus.CANCELLED],
        needs_attention=statuses[OrderStatus.NEEDS_ATTENTION],
        lost=len(find_lost(cases)),
        unplaced=len(plan.placings) - len(cases),
        double_charged=len(find_double_charged(cases, ledger)),
        mischarged=len(find_mischarged(cases, ledger)),
        charged_minor=sum(charged(ledger).values()),
        confirmed_minor=sum(case.placing.total_minor for case in confirmed),
        stock_conserved=not stock_faults,
        restarts=evidence.restarts.total(),
        orders_per_s=round(_rate(ended), 1),
        p50_ms=percentile_ms(ended, 50),
        p99_ms=percentile_ms(ended, 99),
        undisturbed_p50_ms=percentile_ms(undisturbed, 50),
        undisturbed_p99_ms=percentile_ms(undisturbed, 99),
        answers_503=sum(placed.busy for placed in evidence.journal),
        unanswered=sum(placed.unanswered for placed in evidence.journal),
        rejected_by_reason=_rejections(cases),
        cancels=_cancels(cases),
        restarts_by_child=dict(evidence.restarts.most_common()),
        rows_skipped=plan.skipped,
        stock_faults=stock_faults,
    )


def percentile_ms(placed: Iterable[Placed], percent: int) -> float:
    """The time that `percent` of the orders did not exceed; 0 of none."""
    took_ms = sorted(one.took_ms for one in placed)
    return took_ms[math.ceil(len(took_ms) * percent / 100) - 1] if took_ms else 0.0


def _rate(ended: Sequence[Placed]) -> float:
    """Orders a second, from the first one's POST to the last one's end: faults, outages and stragglers included."""
    if not ended:
        return 0.0
    first_s = min(placed.began_s for placed in ended)
    last_s = max(placed.began_s + placed.took_ms / 1000 for placed in ended)
    return len(ended) / (last_s - first_s)


def _overlaps(placed: Placed, disturbed_s: tuple[float, float]) -> bool:
    first_s, last_s = disturbed_s
    return placed.began_s <= last_s and placed.began_s + placed.took_ms / 1000 >= first_s


def _rejections(cases: Iterable[Case]) -> dict[str, int]:
    rejected = (case.reason for case in cases if case.status == OrderStatus.REJECTED)
    return dict(Counter(map(_kind_of, rejected)).most_common())


def _kind_of(reason: str) -> str:
    """A reason without its particulars: which product was missing is one order's affair."""
    kind, _, detail = reason.partition(": ")
    return f"{kind}: {detail}" if kind == "payment_refused" else kind


def _cancels(cases: Iterable[Case]) -> dict[str, int]:
    asked = (case for case in cases if case.placing.cancel)
    return dict(Counter(map(_cancel_of, asked)).most_common())


def _cancel_of(case: Case) -> str:
    told = case.placed.cancel
    return str(case.placing.cancel) if told == "cancelled" else f"asked {told or 'in vain'}"
