"""An order that contradicts itself is rejected as a fact, with the first thing that is wrong with it."""

from typing import Any

import pytest

from actors.actor import Answer, Outcome, Remains
from actors.order import OrderActor
from actors.order_check import LINES_MAX, MINOR_MAX, QUANTITY_MAX
from actors.order_state import digest_of
from messages.generated.orders.v1 import OrderCreated, OrderItem

ORDER = OrderActor(reservation_ttl_ms=1_800_000)
CREATED = OrderCreated(
    order_id="o-1",
    customer_id="17850",
    items=[OrderItem("hat", 6, 255), OrderItem("cup", 2, 100)],
    currency="GBP",
    total_minor=1730,
    payment_token="tok_ok",
)


def altered(**changes: Any) -> OrderCreated:
    fields = ("order_id", "customer_id", "items", "currency", "total_minor", "payment_token")
    return OrderCreated(**{**{name: getattr(CREATED, name) for name in fields}, **changes})


def one_line(sku: str, quantity: int, price: int) -> OrderCreated:
    return altered(items=[OrderItem(sku, quantity, price)], total_minor=quantity * price)


FAULTS = {
    "no lines": (altered(items=[], total_minor=0), "0 lines; 1 to 100 are allowed"),
    "too many lines": (
        altered(items=[OrderItem(f"s{n}", 1, 1) for n in range(LINES_MAX + 1)], total_minor=101),
        "101 lines; 1 to 100 are allowed",
    ),
    "no SKU": (one_line("", 1, 1), "a line's SKU must have 1 to 64 visible ASCII characters"),
    "a SKU of four-byte letters": (
        one_line("\U0001f3a9" * 9, 1, 1),
        "a line's SKU must have 1 to 64 visible ASCII characters",
    ),
    "a long SKU": (
        one_line("x" * 65, 1, 1),
        "a line's SKU must have 1 to 64 visible ASCII characters",
    ),
    "no quantity": (one_line("hat", 0, 1), "quantity 0 of hat"),
    "a negative quantity": (one_line("hat", -2, 1), "quantity -2 of hat"),
    "a huge quantity": (one_line("hat", QUANTITY_MAX + 1, 1), "quantity 2147483648 of hat"),
    "no price": (one_line("hat", 1, 0), "unit price 0 of hat must be positive"),
    "a negative price": (one_line("hat", 1, -255), "unit price -255 of hat must be positive"),
    "a SKU twice": (
        altered(items=[OrderItem("hat", 1, 1), OrderItem("hat", 2, 1)], total_minor=3),
        "one SKU stands in two lines",
    ),
    "lower case currency": (altered(currency="gbp"), "currency 'gbp' is no ISO 4217 code"),
    "a currency with a digit": (altered(currency="GB1"), "currency 'GB1' is no ISO 4217 code"),
    "a foreign letter": (altered(currency="GBÞ"), "currency 'GBÞ' is no ISO 4217 code"),
    "a long currency": (altered(currency="POUNDSTERLING"), "currency 'POUNDSTE' is no"),
    "no currency": (altered(currency=""), "currency '' is no ISO 4217 code"),
    "a low total": (altered(total_minor=1729), "total 1729 is not the sum of the lines, 1730"),
    "no total": (altered(total_minor=0), "total 0 is not the sum of the lines, 1730"),
    "nobody": (altered(customer_id=""), "a customer id must have 1 to 256 characters"),
    "somebody long": (altered(customer_id="x" * 257), "a customer id must have 1 to 256"),
    "no token": (altered(payment_token=""), "a payment token must have 1 to 128 characters"),
    "a long token": (altered(payment_token="x" * 129), "a payment token must have 1 to 128"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_p21_an_order_that_contradicts_itself_is_rejected_and_says_why(
    given: Any, fault: str
) -> None:
    created, reason = FAULTS[fault]
    after = given(ORDER).when(created).then()
    assert after.answer.outcome is Outcome.INVALID
    assert after.answer.detail.startswith(reason)
    assert after.states["o-1"] == Remains(4, digest_of(created))


def test_a_sum_beyond_64_bits_is_a_fault_and_no_crash(given: Any) -> None:
    items = [OrderItem("hat", QUANTITY_MAX, MINOR_MAX), OrderItem("cup", 1, 1)]
    after = given(ORDER).when(altered(items=items, total_minor=MINOR_MAX)).then()
    assert after.answer.outcome is Outcome.INVALID


def test_a_total_of_all_that_64_bits_hold_is_opened(given: Any) -> None:
    assert given(ORDER).when(one_line("hat", 1, MINOR_MAX)).answer == Answer(
        Outcome.DONE, "pending"
    )


def test_an_order_at_every_limit_is_opened(given: Any) -> None:
    lines = [OrderItem(f"{n:064}", QUANTITY_MAX, 42_949_672) for n in range(LINES_MAX)]
    total = LINES_MAX * QUANTITY_MAX * 42_949_672
    assert total < MINOR_MAX
    limits = altered(items=lines, total_minor=total, customer_id="x" * 256, payment_token="x" * 128)
    assert given(ORDER).when(limits).answer == Answer(Outcome.DONE, "pending")
