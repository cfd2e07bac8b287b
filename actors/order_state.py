"""What is known of an order, and what the public sees of it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgspec

from actors.actor import Remains, State
from messages.codec import encode
from messages.generated.orders.v1 import OrderCreated


class OrderStatus(StrEnum):
    """Where an order stands. The last three are terminal."""

    PENDING = "pending"
    RESERVED = "reserved"
    NEEDS_ATTENTION = "needs_attention"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


UNDONE = frozenset({OrderStatus.REJECTED, OrderStatus.CANCELLED})
TERMINAL = UNDONE | {OrderStatus.CONFIRMED}
CODES = tuple(
    OrderStatus
)  # A status' place in this tuple is its code in Remains: only ever add at the end.


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One line: `unit_price_minor` is in the order's currency."""

    sku: str
    quantity: int
    unit_price_minor: int


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One line of an order's history."""

    at_ms: int
    event: str
    status: OrderStatus


class OrderState(State, frozen=True):
    """One order, from its first record until nothing more can be heard about it."""

    order_id: str
    customer_id: str
    currency: str
    total_minor: int
    items: tuple[Item, ...]
    payment_token: str
    digest: int
    deadline_ms: int
    status: OrderStatus
    history: tuple[Event, ...]
    awaited: tuple[str, ...] = ()
    """SKUs that inventory has not answered for."""
    withdrawn: bool = False
    reason: str = ""
    charge_id: str = ""
    refund_id: str = ""

    @property
    def due_ms(self) -> int | None:
        """The order's own deadline, as long as one decision is still open."""
        is_open = self.status in (OrderStatus.PENDING, OrderStatus.RESERVED) and not self.withdrawn
        return self.deadline_ms if is_open else None

    @property
    def remains(self) -> Remains | None:
        if self.status not in TERMINAL or self.awaited:
            return None
        return Remains(CODES.index(self.status), self.digest)

    @property
    def skus(self) -> list[str]:
        return [item.sku for item in self.items]


def digest_of(created: OrderCreated) -> int:
    """64 bits that tell whether two orders of the same id are the same order."""
    return int.from_bytes(blake2b(encode(created), digest_size=8).digest(), "big")


def view(state: OrderState) -> Mapping[str, Any]:
    """The public JSON of an order."""
    return {
        "order_id": state.order_id,
        "status": state.status,
        "reason": state.reason or None,
        "customer_id": state.customer_id,
        "items": [msgspec.structs.asdict(item) for item in state.items],
        "total": {"minor": state.total_minor, "currency": state.currency},
        "payment": {
            "status": _payment_status(state),
            "charge_id": state.charge_id or None,
            "refund_id": state.refund_id or None,
        },
        "reservation": {
            "status": _reservation_status(state),
            "expires_at": _timestamp(state.deadline_ms),
        },
        "history": [
            {"at": _timestamp(line.at_ms), "event": line.event, "status": line.status}
            for line in state.history
        ],
        "version": len(state.history),
    }


def _payment_status(state: OrderState) -> str:
    if state.refund_id:
        return "refunded"
    if state.status is OrderStatus.CONFIRMED:
        return "captured"
    if state.status is OrderStatus.NEEDS_ATTENTION:
        return "unknown"
    if state.status is OrderStatus.RESERVED:
        return "being_undone" if state.withdrawn else "pending"
    return "refused" if state.reason.startswith("payment_refused") else "none"


def _reservation_status(state: OrderState) -> str:
    match state.status:
        case OrderStatus.PENDING:
            return "pending"
        case OrderStatus.CONFIRMED:
            return "sold"
        case OrderStatus.RESERVED | OrderStatus.NEEDS_ATTENTION if not state.withdrawn:
            return "held"
        case _:
            return "refused" if state.reason.startswith("out_of_stock") else "released"


def _timestamp(at_ms: int) -> str:
    """RFC 3339, UTC, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
