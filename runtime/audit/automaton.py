"""Every legal life of an order, as one table: what it is, what happened, what it may become.

Written from the published conversation and not from the actor's code, so that the two are held against each other. An
order that is `withdrawn` has its cancel decided and its payment being undone; its public status does not say so.
"""

from collections.abc import Sequence
from enum import StrEnum
from operator import attrgetter

from actors.order_state import TERMINAL, Event, OrderState, OrderStatus


class Stand(StrEnum):
    """Where an order stands, finer than its status."""

    NOWHERE = ""
    PENDING = "pending"
    RESERVED = "reserved"
    WITHDRAWN = "reserved, withdrawn"
    PARKED = "needs_attention"
    PARKED_WITHDRAWN = "needs_attention, withdrawn"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


_S = Stand

MOVES: dict[Stand, dict[str, tuple[Stand, ...]]] = {
    _S.NOWHERE: {"OrderCreated": (_S.PENDING, _S.REJECTED)},
    _S.PENDING: {
        "StockReserved": (_S.RESERVED,),
        "StockRefused": (_S.REJECTED,),
        "CancelAsked": (_S.CANCELLED,),
        "DeadlinePassed": (_S.CANCELLED,),
    },
    _S.RESERVED: {
        "PaymentTaken": (_S.CONFIRMED,),
        "PaymentRefused": (_S.REJECTED, _S.CANCELLED),
        "PaymentUnknown": (_S.PARKED,),
        "CancelAsked": (_S.WITHDRAWN,),
        "DeadlinePassed": (_S.WITHDRAWN,),
    },
    _S.WITHDRAWN: {
        "PaymentRefunded": (_S.CANCELLED,),
        "PaymentVoided": (_S.CANCELLED,),
        "PaymentRefused": (_S.CANCELLED,),
        "PaymentUnknown": (_S.PARKED_WITHDRAWN,),
    },
    _S.PARKED: {
        "PaymentTaken": (_S.CONFIRMED,),
        "PaymentRefused": (_S.REJECTED, _S.CANCELLED),
        "PaymentUnknown": (_S.PARKED,),
        "CancelAsked": (_S.PARKED_WITHDRAWN,),
        "RetryAsked": (_S.RESERVED,),
    },
    _S.PARKED_WITHDRAWN: {
        "PaymentRefunded": (_S.CANCELLED,),
        "PaymentVoided": (_S.CANCELLED,),
        "PaymentRefused": (_S.CANCELLED,),
        "PaymentUnknown": (_S.PARKED_WITHDRAWN,),
        "CancelAsked": (_S.WITHDRAWN,),
        "RetryAsked": (_S.WITHDRAWN,),
    },
    _S.CONFIRMED: {},
    _S.REJECTED: {},
    _S.CANCELLED: {},
}

STATUS: dict[Stand, OrderStatus] = {
    _S.PENDING: OrderStatus.PENDING,
    _S.RESERVED: OrderStatus.RESERVED,
    _S.WITHDRAWN: OrderStatus.RESERVED,
    _S.PARKED: OrderStatus.NEEDS_ATTENTION,
    _S.PARKED_WITHDRAWN: OrderStatus.NEEDS_ATTENTION,
    _S.CONFIRMED: OrderStatus.CONFIRMED,
    _S.REJECTED: OrderStatus.REJECTED,
    _S.CANCELLED: OrderStatus.CANCELLED,
}

# Every move as (stand, event, status) -> stand: what a history line says, looked up at once.
_BY_LINE = {
    (start, event, STATUS[end]): end
    for start, moves in MOVES.items()
    for event, ends in moves.items()
    for end in ends
}
_PLAIN = {status: stand for stand, status in reversed(STATUS.items())}
_WITHDRAWN = frozenset({Stand.WITHDRAWN, Stand.PARKED_WITHDRAWN})

FIXED = (
    "order_id",
    "customer_id",
    "currency",
    "total_minor",
    "items",
    "payment_token",
    "digest",
)
"""What an order was placed with never changes."""
_fixed = attrgetter(*FIXED)


def follow(stand: Stand, lines: Sequence[Event]) -> tuple[Stand, str]:
    """Where an order stands after these lines of history, and what was illegal about them; empty where nothing was."""
    for line in lines:
        reached = _BY_LINE.get((stand, line.event, line.status))
        if reached is None:
            illegal = f"{stand or 'nothing'} -{line.event}-> {line.status} is no legal move"
            return _stand_of(line.status, withdrawn=stand in _WITHDRAWN), illegal
        stand = reached
    return stand, ""


def stand_of(state: OrderState) -> Stand:
    """Where a state that is already under way stands."""
    return _stand_of(state.status, withdrawn=state.withdrawn)


def find_faults(stand: Stand, state: OrderState) -> Sequence[str]:
    """What a state contradicts in itself, given where its history has led."""
    if state.history and state.history[-1].status is not state.status:
        return [f"its status is {state.status}, its history ends with {state.history[-1].status}"]
    # Once cancelled, having been withdrawn no longer matters.
    if state.status not in TERMINAL and stand_of(state) is not stand:
        return [f"it says {stand_of(state)}, its history leads to {stand}"]
    return ()


def find_changes(before: OrderState, after: OrderState) -> Sequence[str]:
    """What must never change from one stored state to the next, and did."""
    changes: list[str] = []
    if _fixed(before) != _fixed(after):
        for name in FIXED:
            old, new = getattr(before, name), getattr(after, name)
            if old != new:
                changes.append(f"{name} changed from {old!r} to {new!r}")
    if after.history[: len(before.history)] != before.history:
        changes.append("its history was rewritten: what stood there before no longer begins it")
    return changes


def _stand_of(status: OrderStatus, *, withdrawn: bool) -> Stand:
    if withdrawn and status is OrderStatus.RESERVED:
        return Stand.WITHDRAWN
    if withdrawn and status is OrderStatus.NEEDS_ATTENTION:
        return Stand.PARKED_WITHDRAWN
    return _PLAIN[status]
