"""What the demo places: the shop's real orders, which of them are cancelled and why, and the stock to begin with.

The process that places them and the one that judges the outcome each make the plan from the shipped data, so neither
takes the other's word for what was ordered.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from runtime import retail

MIND_CHANGED_ONE_IN = (
    50  # The excerpt's C-invoices hit only 4 of its orders: too few to show a cancel.
)


class Cancel(StrEnum):
    """Why an order is cancelled as soon as it has been placed."""

    RETURNED = "C-invoice"
    MIND_CHANGED = "customer changed their mind"


@dataclass(frozen=True, slots=True)
class Placing:
    """One order to place. `key` is its Idempotency-Key, `body` goes to POST /orders."""

    key: str
    body: Mapping[str, Any]
    cancel: Cancel | None = None

    @property
    def currency(self) -> str:
        return str(self.body["currency"])

    @property
    def total_minor(self) -> int:
        return sum(item["quantity"] * item["unit_price_minor"] for item in self.body["items"])

    @property
    def units(self) -> dict[str, int]:
        return {item["sku"]: item["quantity"] for item in self.body["items"]}


@dataclass(frozen=True, slots=True)
class Plan:
    """Orders in the order of time, opening stock by SKU, and the excerpt's rows that are no part of this, by reason."""

    placings: Sequence[Placing]
    opening: Mapping[str, int]
    skipped: Mapping[str, int]


def make_plan(orders_max: int) -> Plan:
    """The first `orders_max` orders of the excerpt, or all there are."""
    planned = list(retail.excerpt())
    orders = [one for one in planned if isinstance(one, retail.Order)][:orders_max]
    placings = {order.invoice: _placing(order) for order in orders}
    for invoice in _returned(planned):
        if invoice in placings:
            placings[invoice] = replace(placings[invoice], cancel=Cancel.RETURNED)
    skipped = retail.counts(planned).skipped
    return Plan(tuple(placings.values()), retail.catalogue(orders), skipped)


def _placing(order: retail.Order) -> Placing:
    body = retail.body(order, retail.payment_token(order.invoice))
    changed = zlib.crc32(order.invoice.encode()) % MIND_CHANGED_ONE_IN == 0
    return Placing(
        retail.idempotency_key(order.invoice), body, Cancel.MIND_CHANGED if changed else None
    )


def _returned(planned: Sequence[retail.Planned]) -> list[str]:
    """The invoices that C-invoices cancel."""
    latest = retail.Latest()
    returned: list[str] = []
    for one in planned:
        match one:
            case retail.Order():
                latest.remember(one)
            case retail.Cancellation():
                returned += latest.hit_by(one)
    return returned
