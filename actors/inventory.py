"""Inventory: what is on the shelf, and who holds some of it. All of an order's lines in a shard, or none.

Per SKU: `initial == on_hand + sold`, `0 <= reserved <= on_hand`, `available = on_hand - reserved`. A reservation that
outlives its time asks the order instead of releasing itself: the order alone decides, so nothing freed is sold.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from betterproto import Message

from actors.actor import NOTHING, Answer, Due, Heard, Outcome, State, States, Step, View
from messages.generated.orders.v1 import (
    OrderCancelled,
    OrderConfirmed,
    OrderOpened,
    OrderRejected,
    ReservationExpired,
    StockCounted,
    StockRefused,
    StockReserved,
)
from messages.routing import KeysOf, by_lines, by_sku, by_skus, shard_of

ON_HAND_MAX = 2**53 - 1  # Exact in every language's JSON number.


class Stock(State, frozen=True):
    """One SKU. `initial` is all that was ever put on the shelf."""

    sku: str
    initial: int
    on_hand: int
    reserved: int = 0
    sold: int = 0

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved


class Held(msgspec.Struct, frozen=True, array_like=True):
    """So many of a SKU."""

    sku: str
    quantity: int


class Reservation(State, frozen=True):
    """What one order holds in this shard, until `expires_ms`."""

    order_id: str
    lines: tuple[Held, ...]
    expires_ms: int

    @property
    def due_ms(self) -> int | None:
        return self.expires_ms


def stock_key(sku: str) -> str:
    return f"sku:{sku}"


def reservation_key(order_id: str) -> str:
    return f"order:{order_id}"


class InventoryActor:
    """One shard's stock. It keeps the lines whose SKU has this `shard` among `shards`, and leaves the others alone."""

    name: ClassVar[str] = "inventory"
    hears: ClassVar[Mapping[type[Message], KeysOf]] = {
        OrderOpened: by_lines,
        OrderConfirmed: by_skus,
        OrderRejected: by_skus,
        OrderCancelled: by_skus,
        StockCounted: by_sku,
    }
    states: ClassVar[Any] = Stock | Reservation
    view: ClassVar[View] = None

    def __init__(self, *, shard: int, shards: int, reservation_ttl_ms: int) -> None:
        self._shard, self._shards = shard, shards
        self._ttl_ms = reservation_ttl_ms

    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        """Hold, sell, release, count, or ask about what was held too long."""
        match heard:
            case StockCounted():
                return _count(states, heard)
            case OrderOpened() if states.get(reservation_key(heard.order_id)) is None:
                return self._hold(states, heard)
            case OrderConfirmed():
                return _give_up(states, heard.order_id, sold=True)
            case OrderRejected() | OrderCancelled():
                return _give_up(states, heard.order_id, sold=False)
            case Due() if (held := states.get(heard.key)) is not None and held.expires_ms <= now_ms:
                return self._ask_again(held, now_ms)
            case _:
                return NOTHING  # A late copy of a fact already acted on.

    def _hold(self, states: States, opened: OrderOpened) -> Step:
        mine = [line for line in opened.lines if shard_of(line.sku, self._shards) == self._shard]
        skus = [line.sku for line in mine]
        stocks: dict[str, State | None] = {}
        for line in mine:
            stock: Stock | None = states.get(stock_key(line.sku))
            if stock is None or stock.available < line.quantity:
                return _owe(StockRefused(order_id=opened.order_id, skus=skus, missing_sku=line.sku))
            stocks[stock_key(line.sku)] = msgspec.structs.replace(
                stock, reserved=stock.reserved + line.quantity
            )
        held = tuple(Held(line.sku, line.quantity) for line in mine)
        reservation = Reservation(opened.order_id, held, opened.expires_ms)
        return _owe(
            StockReserved(order_id=opened.order_id, skus=skus),
            {**stocks, reservation_key(opened.order_id): reservation},
        )

    def _ask_again(self, held: Reservation, now_ms: int) -> Step:
        renewed = msgspec.structs.replace(held, expires_ms=now_ms + self._ttl_ms)
        skus = [line.sku for line in held.lines]
        return _owe(
            ReservationExpired(order_id=held.order_id, skus=skus),
            {reservation_key(held.order_id): renewed},
        )


def _give_up(states: States, order_id: str, *, sold: bool) -> Step:
    """Turn what an order holds into sales, or back into stock. Holding nothing, it gives up nothing: once only."""
    key = reservation_key(order_id)
    reservation: Reservation | None = states.get(key)
    if reservation is None:
        return NOTHING
    changed: dict[str, State | None] = {key: None}
    for line in reservation.lines:
        stock: Stock = states.get(stock_key(line.sku))  # type: ignore[assignment]  # Held, so it exists.
        gone = line.quantity if sold else 0
        changed[stock_key(line.sku)] = msgspec.structs.replace(
            stock,
            on_hand=stock.on_hand - gone,
            reserved=stock.reserved - line.quantity,
            sold=stock.sold + gone,
        )
    return Step(changed, can_wait=True)


def _count(states: States, counted: StockCounted) -> Step:
    if not 0 <= counted.on_hand <= ON_HAND_MAX:
        return _refuse(f"{counted.on_hand} is not between 0 and {ON_HAND_MAX}")
    stock: Stock = states.get(stock_key(counted.sku)) or Stock(counted.sku, 0, 0)
    if counted.on_hand < stock.reserved:
        return _refuse(f"{stock.reserved} of {counted.sku} are reserved; on hand cannot be less")
    found = counted.on_hand - stock.on_hand
    changed = msgspec.structs.replace(stock, initial=stock.initial + found, on_hand=counted.on_hand)
    return Step({stock_key(counted.sku): changed}, (), Answer(Outcome.DONE))


def _refuse(detail: str) -> Step:
    return Step(answer=Answer(Outcome.INVALID, detail=detail))


def _owe(fact: Message, states: Mapping[str, State | None] | None = None) -> Step:
    return Step(states or {}, (fact,))
