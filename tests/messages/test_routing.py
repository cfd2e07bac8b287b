"""A fact is heard by every shard that owns one of its keys, once, and every instance agrees which those are."""

import pytest

from actors import ACTORS, Place, Terms
from messages.codec import message_class
from messages.generated.orders.v1 import (
    Line,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderOpened,
    PaymentRefunded,
    Record,
    StockCounted,
    StockReserved,
)
from messages.routing import Routes, shard_of

SHARDS = {"order": 4, "inventory": 4, "payment": 4}
HEARS = {name: make(Terms(), Place(0, 4)).hears for name, make in ACTORS.items()}
ROUTES = Routes(HEARS, SHARDS)
ORDER = shard_of("o-1", 4)


@pytest.mark.parametrize(
    ("key", "count", "shard"),
    [("o-1", 4, 2), ("85123A", 4, 1), ("Ünïcode", 7, 5), ("", 4, 0), ("o-1", 1, 0)],
)
def test_a_key_keeps_its_shard_for_ever(key: str, count: int, shard: int) -> None:
    """These numbers are in the log of every installation."""
    assert shard_of(key, count) == shard


def test_a_thousand_keys_are_spread_over_all_shards_about_evenly() -> None:
    counts = [0] * 8
    for number in range(1000):
        counts[shard_of(f"order-{number}", 8)] += 1
    assert min(counts) > 80


def test_an_opened_order_is_heard_once_by_each_shard_that_keeps_one_of_its_lines() -> None:
    by_shard: dict[int, str] = {}
    for number in range(40):
        by_shard.setdefault(shard_of(f"sku-{number}", 4), f"sku-{number}")
    skus = [*by_shard.values(), by_shard[2]]
    opened = OrderOpened(order_id="o-1", lines=[Line(sku, 1) for sku in skus])
    heard_by = ROUTES.heard_by(opened)
    assert sorted(heard_by) == [("inventory", shard) for shard in range(4)]


def test_a_cancelled_order_is_heard_by_payment_and_by_the_stock_that_it_names() -> None:
    cancelled = OrderCancelled(order_id="o-1", skus=["85123A"])
    assert sorted(ROUTES.heard_by(cancelled)) == [("inventory", 1), ("payment", ORDER)]


def test_a_cancellation_that_names_no_stock_is_heard_by_payment_alone() -> None:
    assert ROUTES.heard_by(OrderCancelled(order_id="o-1")) == [("payment", ORDER)]


def test_what_an_order_is_told_goes_to_the_shard_that_opened_it() -> None:
    for fact in (OrderCreated, StockReserved, PaymentRefunded):
        assert ROUTES.heard_by(fact(order_id="o-1")) == [("order", ORDER)]


def test_a_count_of_stock_is_heard_by_the_shard_that_keeps_it() -> None:
    assert ROUTES.heard_by(StockCounted(sku="85123A", on_hand=1)) == [("inventory", 1)]


def test_each_actor_has_its_own_number_of_shards() -> None:
    routes = Routes(HEARS, {"order": 1, "inventory": 2, "payment": 3})
    confirmed = OrderConfirmed(order_id="o-2", skus=["85123A"])
    assert sorted(routes.heard_by(confirmed)) == [
        ("inventory", shard_of("85123A", 2)),
        ("payment", shard_of("o-2", 3)),
    ]


def test_a_message_that_nobody_hears_is_addressed_to_nobody() -> None:
    assert ROUTES.heard_by(Record()) == []
    assert not ROUTES.is_heard(Record)


def test_every_fact_that_an_actor_owes_is_heard_by_somebody() -> None:
    to_order = (
        "StockReserved StockRefused ReservationExpired PaymentTaken PaymentRefused PaymentUnknown"
    )
    to_others = (
        "OrderOpened OrderReserved OrderConfirmed OrderRejected OrderCancelled PaymentRetried"
    )
    for name in (*to_order.split(), "PaymentRefunded", "PaymentVoided", *to_others.split()):
        assert ROUTES.is_heard(message_class(name)), name
