"""Whether an order makes sense: what a stranger may send that no edge has looked at."""

import re

from messages.generated.orders.v1 import OrderCreated, OrderItem

LINES_MAX = 100  # As long as the shop says nothing else.
LINES_LIMIT = (
    1_000  # What it may say at most: a record of one order stays below half of a megabyte.
)
CUSTOMER_CHARS_MAX = 256
TOKEN_CHARS_MAX = 128
QUANTITY_MAX = 2**31 - 1
MINOR_MAX = 2**63 - 1
_CURRENCY = re.compile("[A-Z]{3}")
_SKU = re.compile("[!-~]{1,64}")


def find_fault(created: OrderCreated, lines_max: int = LINES_MAX) -> str:
    """Why an order contradicts itself or the limits; empty where it does not."""
    if not 1 <= len(created.customer_id) <= CUSTOMER_CHARS_MAX:
        return f"a customer id must have 1 to {CUSTOMER_CHARS_MAX} characters"
    if not 1 <= len(created.payment_token) <= TOKEN_CHARS_MAX:
        return f"a payment token must have 1 to {TOKEN_CHARS_MAX} characters"
    if not _CURRENCY.fullmatch(created.currency):
        return f"currency {created.currency[:8]!r} is no ISO 4217 code"
    if fault := _find_fault_in_lines(created.items, lines_max):
        return fault
    total = sum(item.quantity * item.unit_price_minor for item in created.items)
    if created.total_minor != total or total > MINOR_MAX:
        return f"total {created.total_minor} is not the sum of the lines, {total}"
    return ""


def _find_fault_in_lines(items: list[OrderItem], lines_max: int) -> str:
    if not 1 <= len(items) <= lines_max:
        return f"{len(items)} lines; 1 to {lines_max} are allowed"
    for item in items:
        if not _SKU.fullmatch(item.sku):
            return "a line's SKU must have 1 to 64 visible ASCII characters"
        if not 1 <= item.quantity <= QUANTITY_MAX:
            return f"quantity {item.quantity} of {item.sku}; 1 to {QUANTITY_MAX} are allowed"
        if not 1 <= item.unit_price_minor <= MINOR_MAX:
            return f"unit price {item.unit_price_minor} of {item.sku} must be positive"
    if len({item.sku for item in items}) < len(items):
        return "one SKU stands in two lines"
    return ""
