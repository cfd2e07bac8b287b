"""The shipped excerpt and the demo staged on it: what is in it, how it is paid, what the shop has of it."""

from collections import Counter

import pytest

from runtime import retail
from runtime.retail import Counts, Order, Planned, Reason


@pytest.fixture(scope="module")
def excerpt() -> list[Planned]:
    return list(retail.excerpt())


@pytest.fixture(scope="module")
def orders(excerpt: list[Planned]) -> list[Order]:
    return [one for one in excerpt if isinstance(one, Order)]


def test_the_excerpt_holds_this_and_hides_nothing(excerpt: list[Planned]) -> None:
    counted = retail.counts(excerpt)
    assert counted == Counts(
        orders=2180,
        order_rows=5215,
        cancellations=4,
        cancellation_rows=11,
        skipped={
            Reason.NO_CUSTOMER: 2751,
            Reason.NO_EARLIER_ORDER: 117,
            Reason.NOT_A_PRODUCT: 40,
            Reason.STOCK_CORRECTION: 19,
        },
    )
    assert 5215 + 11 + sum(counted.skipped.values()) == 8153


def test_the_excerpts_orders_are_worth_this_to_the_penny(orders: list[Order]) -> None:
    assert sum(q * price for order in orders for _, q, price in order.items) == 10_793_453


def test_the_excerpts_invoices_come_in_the_order_of_time(orders: list[Order]) -> None:
    invoices = [int(order.invoice) for order in orders]
    assert len(set(invoices)) == len(invoices)
    assert invoices[0] == 536365
    assert [order.line_no for order in orders] == sorted(order.line_no for order in orders)


def test_payment_tokens_keep_their_shares(orders: list[Order]) -> None:
    drawn = Counter(retail.payment_token(order.invoice) for order in orders)
    assert sum(retail.TOKEN_SHARES.values()) == 100
    assert drawn == {
        "tok_ok": 1949,
        "tok_declined": 91,
        "tok_flaky": 52,
        "tok_slow": 41,
        "tok_error_after_charge": 27,
        "tok_timeout_after_charge": 20,
    }


def test_the_catalogue_has_every_product_and_is_short_of_a_few(orders: list[Order]) -> None:
    demand: Counter[str] = Counter()
    for order in orders:
        demand.update({sku: quantity for sku, quantity, _ in order.items})
    stock = retail.catalogue(orders)
    short = {sku for sku, units in demand.items() if stock[sku] < units}
    assert stock.keys() == demand.keys()
    assert 0.97 < sum(stock.values()) / demand.total() < 0.99
    assert 0.03 < len(short) / len(stock) < 0.05


def test_most_orders_find_their_goods_and_some_do_not(orders: list[Order]) -> None:
    """One after the other, with the stock of declined orders given back."""
    stock = retail.catalogue(orders)
    refused = 0
    for order in orders:
        if any(stock[sku] < quantity for sku, quantity, _ in order.items):
            refused += 1
        elif retail.payment_token(order.invoice) != "tok_declined":
            for sku, quantity, _ in order.items:
                stock[sku] -= quantity
    assert refused == 90


def test_keys_are_the_invoices_own_and_bodies_are_what_the_api_takes(orders: list[Order]) -> None:
    first = orders[0]
    assert retail.idempotency_key(first.invoice) == "online-retail-536365"
    assert retail.body(first, "tok_ok") == {
        "customer_id": "17850",
        "currency": "GBP",
        "items": [
            {"sku": "71053", "quantity": 6, "unit_price_minor": 339},
            {"sku": "84029E", "quantity": 6, "unit_price_minor": 339},
        ],
        "payment_token": "tok_ok",
    }
