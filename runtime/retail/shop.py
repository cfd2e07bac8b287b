"""Stages the demo: how each order is paid, and how much of each product the shop has. The same on every machine."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

from runtime.retail.invoices import Order

TOKEN_SHARES = {  # Percent of the orders; the payment simulator acts each of them out.
    "tok_ok": 90,
    "tok_declined": 4,
    "tok_flaky": 2,
    "tok_slow": 2,
    "tok_timeout_after_charge": 1,
    "tok_error_after_charge": 1,
}
_TOKENS = tuple(token for token, percent in TOKEN_SHARES.items() for _ in range(percent))

SHORT_ONE_IN = 25  # So many products have half of what is ordered; of all others there is enough.


def idempotency_key(invoice: str) -> str:
    """The order's key at POST /orders: placing an invoice again is the same order for ever."""
    return f"online-retail-{invoice}"


def payment_token(invoice: str) -> str:
    return _TOKENS[_number("payment", invoice) % len(_TOKENS)]


def body(order: Order, token: str) -> dict[str, Any]:
    """What POST /orders takes."""
    return {
        "customer_id": order.customer_id,
        "currency": order.currency,
        "items": [
            {"sku": sku, "quantity": quantity, "unit_price_minor": unit_price_minor}
            for sku, quantity, unit_price_minor in order.items
        ],
        "payment_token": token,
    }


def catalogue(orders: Iterable[Order]) -> dict[str, int]:
    """Opening stock: about 98 % of what is ordered, missing where real shops miss it, in a few products altogether.

    A little missing everywhere would refuse the last order of almost every product, since most are ordered once or
    twice; half missing of one product in SHORT_ONE_IN refuses a few orders in a hundred, spread over the run.
    """
    demand: Counter[str] = Counter()
    for order in orders:
        for sku, quantity, _ in order.items:
            demand[sku] += quantity
    return {sku: units // 2 if _is_short(sku) else units for sku, units in demand.items()}


def _is_short(sku: str) -> bool:
    return _number("stock", sku) % SHORT_ONE_IN == 0


def _number(purpose: str, name: str) -> int:
    """A number drawn by name: alike everywhere, and independent between purposes."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{name}".encode()).digest()[:8])
