"""Stock: no unit appears or is lost, at any record of the log (I4)."""

from collections import Counter
from collections.abc import Iterator

from actors.order_state import OrderStatus
from runtime.audit.check import judged
from runtime.audit.evidence import Evidence
from runtime.audit.report import Finding, Result


def check_stock(evidence: Evidence) -> Result:
    """I4: per SKU initial == available + reserved + sold at every record, reservations add up, nothing is negative.

    In the end nothing is reserved but for orders that need attention, and what is sold is what confirmed orders hold.
    """
    rule = "initial = available + reserved + sold at every record; sold = confirmed"
    shelves = evidence.history.shelves
    findings = list(shelves.findings)
    notes = []
    if evidence.history.is_whole:
        findings += [*shelves.mismatches, *_find_in_the_end(evidence)]
    else:
        notes.append("the log's beginning has expired: only its records' own balances are checked")
    return judged("I4", rule, shelves.balances, findings, notes)


def _find_in_the_end(evidence: Evidence) -> Iterator[Finding]:
    confirmed = _units(evidence, OrderStatus.CONFIRMED)
    held = _units(evidence, OrderStatus.NEEDS_ATTENTION)
    stocks = evidence.history.shelves.stocks
    for sku in sorted(stocks.keys() | confirmed.keys()):
        stock = stocks.get(sku)
        sold = stock.sold if stock else 0
        reserved = stock.reserved if stock else 0
        if not evidence.is_quiescent:
            if sold > confirmed[sku]:
                yield Finding("I4", sku, f"{sold} sold, confirmed orders hold {confirmed[sku]}")
            continue
        if sold != confirmed[sku]:
            yield Finding("I4", sku, f"{sold} sold, confirmed orders hold {confirmed[sku]}")
        if reserved > held[sku]:
            yield Finding("I4", sku, f"{reserved} still reserved, parked orders hold {held[sku]}")


def _units(evidence: Evidence, status: OrderStatus) -> Counter[str]:
    units: Counter[str] = Counter()
    for _, one in evidence.history.orders:
        if one.state.status is status:
            for item in one.state.items:
                units[item.sku] += item.quantity
    return units
