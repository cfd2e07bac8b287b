"""What the load buys: orders made of a number, always the same, as protobuf and as JSON."""

import json
from collections.abc import Iterator

from messages.codec import wire_class

SKUS = 1_000
ON_HAND = 10**12  # Of each: nothing is ever out of stock.
LINES = 2
PRICE_MINOR = 1_999

_OrderCreated = wire_class("OrderCreated")


def order_id(number: int) -> str:
    return f"bench-{number:012d}"


def sku(number: int) -> str:
    return f"sku-{number % SKUS:04d}"


def units(lines: int = LINES) -> int:
    """How many units an order of so many lines takes from the shelves."""
    return sum(quantity for _, quantity in _lines(0, lines))


def order_bytes(number: int, lines: int = LINES) -> bytes:
    """An OrderCreated. By protobuf's own classes: building betterproto's would cost the load more than the placing."""
    made = _OrderCreated(
        order_id=order_id(number),
        customer_id=f"customer-{number % 997}",
        currency="EUR",
        total_minor=PRICE_MINOR * units(lines),
        payment_token="tok_ok",  # noqa: S106  # A stub's token is no secret.
    )
    for wanted, quantity in _lines(number, lines):
        made.items.add(sku=wanted, quantity=quantity, unit_price_minor=PRICE_MINOR)
    packed: bytes = made.SerializeToString()
    return packed


def order_json(number: int) -> bytes:
    """The body of a POST /orders."""
    items = [
        {"sku": wanted, "quantity": quantity, "unit_price_minor": PRICE_MINOR}
        for wanted, quantity in _lines(number, LINES)
    ]
    body = {
        "customer_id": f"customer-{number % 997}",
        "currency": "EUR",
        "payment_token": "tok_ok",
        "items": items,
    }
    return json.dumps(body).encode()


def _lines(number: int, lines: int) -> Iterator[tuple[str, int]]:
    for nth in range(lines):
        yield (
            sku(number * 7 + nth * 13),
            1 + nth % 2,
        )  # 13 has no factor of SKUS: each line another.
