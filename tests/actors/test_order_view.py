"""What the public sees of an order: where it stands, where the money and the stock are, and how it came there."""

from typing import Any

import msgspec
import pytest

from actors.order_state import Event, Item, OrderState, OrderStatus, view

RESERVED = OrderState(
    order_id="o-1",
    customer_id="17850",
    currency="GBP",
    total_minor=1730,
    items=(Item("hat", 6, 255), Item("cup", 2, 100)),
    payment_token="tok_ok",
    digest=0,
    deadline_ms=1_700_000_000_000,
    status=OrderStatus.RESERVED,
    history=(Event(1_699_998_200_000, "OrderCreated", OrderStatus.PENDING),),
)


def test_the_view_of_an_order_shows_all_but_its_payment_token() -> None:
    assert view(RESERVED) == {
        "order_id": "o-1",
        "status": "reserved",
        "reason": None,
        "customer_id": "17850",
        "items": [
            {"sku": "hat", "quantity": 6, "unit_price_minor": 255},
            {"sku": "cup", "quantity": 2, "unit_price_minor": 100},
        ],
        "total": {"minor": 1730, "currency": "GBP"},
        "payment": {"status": "pending", "charge_id": None, "refund_id": None},
        "reservation": {"status": "held", "expires_at": "2023-11-14T22:13:20.000+00:00"},
        "history": [
            {
                "at": "2023-11-14T21:43:20.000+00:00",
                "event": "OrderCreated",
                "status": "pending",
            }
        ],
        "version": 1,
    }


@pytest.mark.parametrize(
    ("changes", "payment", "reservation"),
    [
        ({"status": OrderStatus.PENDING}, "none", "pending"),
        ({}, "pending", "held"),
        ({"withdrawn": True}, "being_undone", "released"),
        ({"status": OrderStatus.NEEDS_ATTENTION}, "unknown", "held"),
        ({"status": OrderStatus.NEEDS_ATTENTION, "withdrawn": True}, "unknown", "released"),
        ({"status": OrderStatus.CONFIRMED, "charge_id": "ch-1"}, "captured", "sold"),
        ({"status": OrderStatus.REJECTED, "reason": "out_of_stock: hat"}, "none", "refused"),
        ({"status": OrderStatus.REJECTED, "reason": "payment_refused: x"}, "refused", "released"),
        ({"status": OrderStatus.CANCELLED, "refund_id": "re-1"}, "refunded", "released"),
        ({"status": OrderStatus.CANCELLED}, "none", "released"),
    ],
)
def test_the_view_says_where_the_money_and_the_stock_are(
    changes: dict[str, Any], payment: str, reservation: str
) -> None:
    seen = view(msgspec.structs.replace(RESERVED, **changes))
    assert (seen["payment"]["status"], seen["reservation"]["status"]) == (payment, reservation)
