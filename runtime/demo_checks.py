"""What must be true at the end of the demo, and what is not: pure functions over independent sources.

What was ordered is known from the plan, what was accepted from the customers' journal, what became of it from the
system's own views and stock, and where money really moved from the payment provider's ledger.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from actors.order_state import TERMINAL, OrderStatus
from runtime.demo_load import Level, Placed, Seen
from runtime.demo_plan import Placing
from runtime.simulator_ledger import Line


@dataclass(frozen=True, slots=True)
class Case:
    """One accepted order: what was placed, what the customer was told, and how it stands now."""

    placing: Placing
    placed: Placed
    status: str
    reason: str

    @property
    def order_id(self) -> str:
        return self.placed.order_id


def join(
    placings: Iterable[Placing], journal: Iterable[Placed], seen: Iterable[Seen]
) -> list[Case]:
    """Every accepted order. The status of one that nobody has seen is empty."""
    by_key = {placing.key: placing for placing in placings}
    by_id = {one.order_id: one for one in seen}
    unseen = Seen("", "", "")
    return [
        Case(by_key[placed.key], placed, now.status, now.reason)
        for placed in journal
        if placed.order_id
        for now in (by_id.get(placed.order_id, unseen),)
    ]


def find_lost(cases: Iterable[Case]) -> set[str]:
    """Accepted orders that are unknown or undecided. One that needs attention is neither."""
    known = TERMINAL | {OrderStatus.NEEDS_ATTENTION}
    return {case.order_id for case in cases if case.status not in known}


# --- money ---


def find_double_charged(cases: Iterable[Case], ledger: Sequence[Line]) -> set[str]:
    """References charged twice, or with more than their order costs; what is no order of ours costs nothing."""
    captures = Counter(line.reference for line in ledger if line.kind == "capture")
    costs = {case.order_id: case.placing.total_minor for case in cases}
    twice = {reference for reference, times in captures.items() if times > 1}
    over = {ref for (ref, _), minor in charged(ledger).items() if minor > costs.get(ref, 0)}
    return twice | over


def find_mischarged(cases: Iterable[Case], ledger: Sequence[Line]) -> set[str]:
    """References that are confirmed and not paid for to the penny, or not confirmed and not paid back.

    Of an order that needs attention nobody claims to know what was taken.
    """
    cases = list(cases)
    due = {
        (case.order_id, case.placing.currency): case.placing.total_minor
        for case in cases
        if case.status == OrderStatus.CONFIRMED
    }
    taken = charged(ledger)
    unknown = {case.order_id for case in cases if case.status == OrderStatus.NEEDS_ATTENTION}
    wrong = {
        pair[0] for pair in due.keys() | taken.keys() if taken.get(pair, 0) != due.get(pair, 0)
    }
    return wrong - unknown


def charged(ledger: Iterable[Line]) -> Mapping[tuple[str, str], int]:
    """What was taken and not given back, by reference and currency."""
    net: dict[tuple[str, str], int] = {}
    for line in ledger:
        minor = line.amount_minor if line.kind == "capture" else -line.amount_minor
        net[line.reference, line.currency] = net.get((line.reference, line.currency), 0) + minor
    return net


# --- stock ---


def find_stock_faults(
    cases: Sequence[Case], opening: Mapping[str, int], stock: Mapping[str, Level]
) -> list[str]:
    """Every product whose units do not add up, and how."""
    sold = _units(cases, OrderStatus.CONFIRMED)
    held = _units(cases, OrderStatus.NEEDS_ATTENTION)
    faults = [f"{sku}: never stocked, and there" for sku in stock.keys() - opening.keys()]
    for sku, units in opening.items():
        level = stock.get(sku)
        fault = _level_fault(level, units, sold[sku], held[sku]) if level else "gone"
        if fault:
            faults.append(f"{sku}: {fault}")
    return faults


def _level_fault(level: Level, opening: int, sold: int, held: int) -> str:
    if min(level.on_hand, level.reserved, level.available, level.sold) < 0:
        return f"negative: {level}"
    if level.available + level.reserved + level.sold != opening:
        return f"stocked with {opening}, and now {level}"
    if level.sold != sold:
        return f"{level.sold} sold, but confirmed orders hold {sold}"
    if level.reserved != held:
        return f"{level.reserved} reserved, but undecided orders hold {held}"
    return ""


def _units(cases: Iterable[Case], status: OrderStatus) -> Counter[str]:
    units: Counter[str] = Counter()
    for case in cases:
        if case.status == status:
            units.update(case.placing.units)
    return units
