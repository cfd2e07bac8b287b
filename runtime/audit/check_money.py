"""Money: nobody is charged twice (I2), and what was kept is what confirmed orders cost (I3)."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from actors.order_state import OrderStatus
from runtime.audit.check import judged, unchecked
from runtime.audit.evidence import Evidence
from runtime.audit.report import Finding, Result
from runtime.simulator_ledger import Line

NEEDS_LEDGER = "the payment provider's ledger (--ledger FILE)"


def check_charges(evidence: Evidence) -> Result:
    """I2: of each order at most one charge, and of it all or nothing kept: net is 0 or the order's total."""
    rule = "each order is charged once at most, its total or nothing"
    if evidence.ledger is None:
        return unchecked("I2", rule, NEEDS_LEDGER)
    findings: list[Finding] = []
    by_reference = _by_reference(evidence.ledger)
    for reference, lines in by_reference.items():
        captures = [line for line in lines if line.kind == "capture"]
        if len(captures) > 1:
            findings.append(Finding("I2", reference, f"it was charged {len(captures)} times"))
        order = evidence.history.orders.get(reference)
        if order is None:
            continue  # I9's affair.
        net = _net_minor(lines)
        if net and net != {order.state.currency: order.state.total_minor}:
            costs = f"{order.state.total_minor} {order.state.currency}"
            findings.append(Finding("I2", reference, f"{_said(net)} kept; it costs {costs}"))
    return judged("I2", rule, len(by_reference), findings)


def check_books(evidence: Evidence) -> Result:
    """I3: what was kept is the sum of the totals of confirmed orders, to the minor unit, in every currency.

    Orders on their way, and those of whose payment nobody claims to know, are left out on both sides.
    """
    rule = "charges less refunds are the totals of confirmed orders, per currency"
    if evidence.ledger is None:
        return unchecked("I3", rule, NEEDS_LEDGER)
    kept: Counter[str] = Counter()
    owed: Counter[str] = Counter()
    wrong: list[Finding] = []
    nets = {ref: _net_minor(lines) for ref, lines in _by_reference(evidence.ledger).items()}
    for key, one in evidence.history.orders:
        if not one.is_terminal:
            continue
        is_owed = one.state.status is OrderStatus.CONFIRMED
        due = {one.state.currency: one.state.total_minor} if is_owed else {}
        net = nets.get(key, {})
        owed.update(due)
        kept.update(net)
        if net != due:
            wrong.append(
                Finding("I3", key, f"{one.state.status}: {_said(net)} kept, {_said(due)} due")
            )
    for currency in sorted(kept.keys() | owed.keys()):
        if kept[currency] != owed[currency]:
            seen = f"{kept[currency]} kept, {owed[currency]} due"
            wrong.insert(0, Finding("I3", currency, seen))
    notes = [f"{minor} {currency} kept" for currency, minor in sorted(kept.items())]
    return judged("I3", rule, len(evidence.history.orders), wrong, notes)


def find_double_charged(evidence: Evidence) -> set[str]:
    """References with more than one capture, whatever was given back."""
    captures = Counter(line.reference for line in evidence.ledger or () if line.kind == "capture")
    return {reference for reference, times in captures.items() if times > 1}


def _by_reference(ledger: Sequence[Line]) -> dict[str, list[Line]]:
    lines: dict[str, list[Line]] = defaultdict(list)
    for line in ledger:
        lines[line.reference].append(line)
    return lines


def _net_minor(lines: Sequence[Line]) -> dict[str, int]:
    """Captures less refunds, by currency; only what is not nothing."""
    net: Counter[str] = Counter()
    for line in lines:
        net[line.currency] += line.amount_minor if line.kind == "capture" else -line.amount_minor
    return {currency: minor for currency, minor in net.items() if minor}


def _said(net: dict[str, int]) -> str:
    return ", ".join(f"{minor} {currency}" for currency, minor in net.items()) or "nothing"
