"""Stock is held for an order in whole or not at all, and is given up once: sold or released."""

from typing import Any

import msgspec
import pytest
from betterproto import Message

from actors.actor import Answer, Due, Outcome
from actors.inventory import (
    Held,
    InventoryActor,
    Reservation,
    Stock,
    reservation_key,
    stock_key,
)
from messages.generated.orders.v1 import (
    Line,
    OrderCancelled,
    OrderConfirmed,
    OrderOpened,
    OrderRejected,
    ReservationExpired,
    StockCounted,
    StockRefused,
    StockReserved,
)
from messages.routing import shard_of

TTL_MS = 1000
EXPIRES_MS = 5000
INVENTORY = InventoryActor(shard=0, shards=1, reservation_ttl_ms=TTL_MS)
STOCK = {stock_key(sku): Stock(sku, initial=5, on_hand=5) for sku in ("hat", "cup")}
HELD = {
    stock_key("hat"): Stock("hat", initial=5, on_hand=5, reserved=3),
    stock_key("cup"): Stock("cup", initial=5, on_hand=5, reserved=5),
    reservation_key("o-1"): Reservation("o-1", (Held("hat", 2), Held("cup", 5)), EXPIRES_MS),
    reservation_key("o-2"): Reservation("o-2", (Held("hat", 1),), EXPIRES_MS),
}


def opened(order_id: str = "o-1", **quantities: int) -> OrderOpened:
    lines = [Line(sku, quantity) for sku, quantity in quantities.items()]
    return OrderOpened(order_id=order_id, lines=lines, expires_ms=EXPIRES_MS)


def test_all_lines_are_held_until_the_order_expires(given: Any) -> None:
    after = given(INVENTORY, STOCK).when(opened(hat=2, cup=5))
    after.then(StockReserved(order_id="o-1", skus=["hat", "cup"]))
    assert after.states[stock_key("hat")] == Stock("hat", 5, 5, reserved=2)
    assert after.states[stock_key("cup")] == Stock("cup", 5, 5, reserved=5)
    held = after.states[reservation_key("o-1")]
    assert held == Reservation("o-1", (Held("hat", 2), Held("cup", 5)), EXPIRES_MS)
    assert held.due_ms == EXPIRES_MS


def test_all_lines_or_none(given: Any) -> None:
    after = given(INVENTORY, STOCK).when(opened(hat=2, cup=6))
    after.then(StockRefused(order_id="o-1", skus=["hat", "cup"], missing_sku="cup"))
    assert after.states == STOCK


def test_the_last_piece_is_held_once(given: Any) -> None:
    after = given(INVENTORY, HELD).when(opened("o-3", hat=2))
    after.then(StockReserved(order_id="o-3", skus=["hat"]))
    assert after.states[stock_key("hat")].available == 0
    after.when(opened("o-4", hat=1))
    after.then(StockRefused(order_id="o-4", skus=["hat"], missing_sku="hat"))


def test_a_sku_that_nobody_has_counted_is_refused(given: Any) -> None:
    given(INVENTORY, STOCK).when(opened(wig=1)).then(
        StockRefused(order_id="o-1", skus=["wig"], missing_sku="wig")
    )


def test_lines_of_other_shards_are_left_to_them(given: Any) -> None:
    shard = shard_of("hat", 8)
    assert shard_of("cup", 8) != shard
    after = given(InventoryActor(shard=shard, shards=8, reservation_ttl_ms=TTL_MS), STOCK)
    after.when(opened(hat=2, cup=6)).then(StockReserved(order_id="o-1", skus=["hat"]))
    assert after.states[stock_key("cup")] == STOCK[stock_key("cup")]
    assert after.states[reservation_key("o-1")].lines == (Held("hat", 2),)


def test_a_confirmed_order_sells_what_it_holds(given: Any) -> None:
    after = given(INVENTORY, HELD).when(OrderConfirmed(order_id="o-1", skus=["hat", "cup"])).then()
    assert after.states == {
        stock_key("hat"): Stock("hat", 5, on_hand=3, reserved=1, sold=2),
        stock_key("cup"): Stock("cup", 5, on_hand=0, reserved=0, sold=5),
        reservation_key("o-2"): HELD[reservation_key("o-2")],
    }


@pytest.mark.parametrize("kind", [OrderRejected, OrderCancelled])
def test_a_rejected_or_cancelled_order_releases_what_it_holds(
    given: Any, kind: type[OrderRejected] | type[OrderCancelled]
) -> None:
    after = given(INVENTORY, HELD).when(kind(order_id="o-1", skus=["hat", "cup"])).then()
    assert after.states == {
        stock_key("hat"): Stock("hat", 5, 5, reserved=1),
        stock_key("cup"): Stock("cup", 5, 5),
        reservation_key("o-2"): HELD[reservation_key("o-2")],
    }


ENDS = [
    OrderConfirmed(order_id="o-1"),
    OrderRejected(order_id="o-1"),
    OrderCancelled(order_id="o-1"),
]


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
def test_what_was_sold_or_released_is_not_sold_or_released_again(
    given: Any, first: Message, second: Message
) -> None:
    after = given(INVENTORY, HELD).when(first)
    once = dict(after.states)
    after.when(second).then()
    assert after.states == once


@pytest.mark.parametrize("heard", ENDS)
def test_an_order_that_holds_nothing_gives_nothing_up(given: Any, heard: Message) -> None:
    assert given(INVENTORY, STOCK).when(heard).then().states == STOCK


def test_an_order_opened_twice_holds_its_lines_once(given: Any) -> None:
    after = given(INVENTORY, STOCK).when(opened(hat=2))
    once = dict(after.states)
    after.when(opened(hat=2)).then()
    assert after.states == once


def test_a_reservation_that_outlives_its_time_asks_the_order_and_stays_held(given: Any) -> None:
    after = given(INVENTORY, HELD).at(EXPIRES_MS).when(Due(reservation_key("o-1")))
    after.then(ReservationExpired(order_id="o-1", skus=["hat", "cup"]))
    renewed = after.states[reservation_key("o-1")]
    assert renewed == Reservation("o-1", (Held("hat", 2), Held("cup", 5)), EXPIRES_MS + TTL_MS)
    assert after.states[stock_key("hat")] == HELD[stock_key("hat")]
    after.at(EXPIRES_MS + TTL_MS).when(Due(reservation_key("o-1")))
    after.then(ReservationExpired(order_id="o-1", skus=["hat", "cup"]))


@pytest.mark.parametrize(
    ("key", "now_ms"),
    [
        (reservation_key("o-1"), EXPIRES_MS - 1),
        (reservation_key("o-9"), EXPIRES_MS),
        ("", EXPIRES_MS),
    ],
    ids=["too early", "already given up", "no key at all"],
)
def test_a_deadline_that_is_none_changes_nothing(given: Any, key: str, now_ms: int) -> None:
    assert given(INVENTORY, HELD).at(now_ms).when(Due(key)).then().states == HELD


@pytest.mark.parametrize("heard", ENDS)
def test_nobody_waits_for_what_is_given_up(heard: Message) -> None:
    assert INVENTORY.react(HELD, heard, 0).can_wait


def test_states_are_packed_by_position_so_that_old_logs_stay_readable() -> None:
    """Fields are added at the end, with a default; nothing in these rows ever moves."""
    stock = Stock("hat", initial=5, on_hand=3, reserved=1, sold=2)
    reservation = HELD[reservation_key("o-1")]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(stock)) == ["Stock", "hat", 5, 3, 1, 2]
    held = [["hat", 2], ["cup", 5]]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reservation)) == [
        "Reservation",
        "o-1",
        held,
        EXPIRES_MS,
    ]
    for state in (stock, reservation):
        packed = msgspec.msgpack.encode(state)
        assert msgspec.msgpack.decode(packed, type=INVENTORY.states) == state


# --- counting ---


def test_a_first_count_puts_stock_on_the_shelf(given: Any) -> None:
    after = given(INVENTORY).when(StockCounted(sku="hat", on_hand=7)).then()
    assert after.states == {stock_key("hat"): Stock("hat", initial=7, on_hand=7)}
    assert after.answer == Answer(Outcome.DONE)


@pytest.mark.parametrize("on_hand", [3, 4, 9, 9_007_199_254_740_991])
def test_a_later_count_changes_what_was_put_there_by_the_difference(
    given: Any, on_hand: int
) -> None:
    before = Stock("hat", initial=10, on_hand=6, reserved=3, sold=4)
    after = given(INVENTORY, {stock_key("hat"): before})
    stock = after.when(StockCounted(sku="hat", on_hand=on_hand)).states[stock_key("hat")]
    assert stock == Stock("hat", initial=on_hand + 4, on_hand=on_hand, reserved=3, sold=4)


def test_a_count_below_what_is_reserved_is_refused(given: Any) -> None:
    after = given(INVENTORY, HELD).when(StockCounted(sku="cup", on_hand=4)).then()
    assert after.states == HELD
    assert after.answer == Answer(
        Outcome.INVALID, detail="5 of cup are reserved; on hand cannot be less"
    )


@pytest.mark.parametrize("on_hand", [-1, 9_007_199_254_740_992])  # 2^53: no longer exact in JSON.
def test_a_count_that_no_shelf_has_is_refused(given: Any, on_hand: int) -> None:
    after = given(INVENTORY, STOCK).when(StockCounted(sku="hat", on_hand=on_hand)).then()
    assert after.states == STOCK
    assert after.answer.outcome is Outcome.INVALID
