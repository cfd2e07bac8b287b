"""The order: opened, reserved, paid, confirmed; or rejected, cancelled, parked. It alone decides what becomes of it.

Every legal move:

| status | hears | becomes | owes |
|---|---|---|---|
| - | OrderCreated | pending | OrderOpened |
| - | OrderCreated that contradicts itself | rejected | |
| pending | StockReserved, the last one awaited | reserved | OrderReserved |
| pending | StockRefused | rejected | OrderRejected |
| pending | CancelAsked, its deadline | cancelled | OrderCancelled |
| reserved | PaymentTaken | confirmed | OrderConfirmed |
| reserved | PaymentRefused | rejected, or cancelled where a deadline was the reason | OrderRejected, OrderCancelled |
| reserved | PaymentUnknown | needs_attention | |
| reserved | CancelAsked, its deadline | reserved, withdrawn | OrderCancelled |
| needs_attention | CancelAsked | needs_attention, withdrawn | OrderCancelled |
| needs_attention, withdrawn | CancelAsked | reserved, withdrawn, with a new deadline | PaymentRetried |
| withdrawn | PaymentRefunded, PaymentVoided, PaymentRefused | cancelled | |
| withdrawn | PaymentTaken | withdrawn | OrderCancelled, to payment alone |
| withdrawn | PaymentUnknown | needs_attention | |
| needs_attention | PaymentTaken, PaymentRefused: as in reserved | | |
| needs_attention | RetryAsked | reserved, with a new deadline | PaymentRetried |
| rejected, cancelled | StockReserved, PaymentTaken | | OrderRejected, OrderCancelled: release it, give it back |
| withdrawn | StockReserved | | OrderCancelled: what is held once more is released |
| confirmed | StockReserved | | OrderRejected, to inventory alone: what is held once more is released |
| confirmed | PaymentTaken | | OrderConfirmed, to payment alone; of another charge: OrderCancelled, give it back |
| terminal, withdrawn | ReservationExpired | | what was missed: OrderConfirmed, OrderRejected or OrderCancelled |

*Withdrawn* means that the cancel is decided and the payment is being undone; `cancelled` is said only when the money is
known to be back. A terminal order that still awaits answers stays live until they have come; then only its id, status
and a digest of its body are kept.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from betterproto import Message

from actors.actor import (
    NOTHING,
    Answer,
    Due,
    Heard,
    Outcome,
    Remains,
    States,
    Step,
    View,
)
from actors.order_check import LINES_MAX, find_fault
from actors.order_state import (
    CODES,
    TERMINAL,
    UNDONE,
    Event,
    Item,
    OrderState,
    OrderStatus,
    digest_of,
    view,
)
from messages.generated.orders.v1 import (
    CancelAsked,
    Line,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderOpened,
    OrderRejected,
    OrderReserved,
    PaymentRefunded,
    PaymentRefused,
    PaymentRetried,
    PaymentTaken,
    PaymentUnknown,
    PaymentVoided,
    ReservationExpired,
    RetryAsked,
    StockRefused,
    StockReserved,
)
from messages.routing import KeysOf, by_order

DEADLINE_PASSED = "deadline_passed"
"""The code of a PaymentRefused that nobody refused: time ran out, and nothing had been taken."""


class OrderActor:
    """Hears what happens to orders.

    `reservation_ttl_ms` is how long one may stay undecided, `lines_max` how many lines a new one may have.
    """

    name: ClassVar[str] = "order"
    hears: ClassVar[Mapping[type[Message], KeysOf]] = dict.fromkeys(
        (
            OrderCreated,
            CancelAsked,
            RetryAsked,
            StockReserved,
            StockRefused,
            ReservationExpired,
            PaymentTaken,
            PaymentRefused,
            PaymentUnknown,
            PaymentRefunded,
            PaymentVoided,
        ),
        by_order,
    )
    states: ClassVar[Any] = OrderState
    view: ClassVar[View] = staticmethod(view)

    def __init__(self, *, reservation_ttl_ms: int, lines_max: int = LINES_MAX) -> None:
        self._ttl_ms = reservation_ttl_ms
        self._lines_max = lines_max

    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        """One order's next state, what it owes the others, and the answer if one was asked."""
        order_id = heard.key if isinstance(heard, Due) else heard.order_id  # type: ignore[union-attr]  # All it hears has one.
        match states.get(order_id):
            case None:
                return (
                    self._open(heard, now_ms) if isinstance(heard, OrderCreated) else _miss(heard)
                )
            case Remains() as remains:
                return _after(remains, heard)
            case OrderState() as state:
                if isinstance(heard, OrderCreated):
                    same = digest_of(heard) == state.digest
                    return _answer(Outcome.DONE if same else Outcome.REUSED, state.status)
                return self._advance(state, heard, now_ms)
            case unexpected:
                raise TypeError(f"order {order_id} has a state of type {type(unexpected).__name__}")

    def _open(self, created: OrderCreated, now_ms: int) -> Step:
        fault = find_fault(created, self._lines_max)
        status = OrderStatus.REJECTED if fault else OrderStatus.PENDING
        state = OrderState(
            order_id=created.order_id,
            customer_id=created.customer_id,
            currency=created.currency,
            total_minor=created.total_minor,
            items=tuple(Item(i.sku, i.quantity, i.unit_price_minor) for i in created.items),
            payment_token=created.payment_token,
            digest=digest_of(created),
            deadline_ms=now_ms + self._ttl_ms,
            status=status,
            history=(Event(now_ms, "OrderCreated", status),),
            awaited=() if fault else tuple(item.sku for item in created.items),
            reason=f"invalid: {fault}" if fault else "",
        )
        if fault:
            return _step(state, answer=Answer(Outcome.INVALID, status, fault))
        lines = [Line(sku=item.sku, quantity=item.quantity) for item in created.items]
        opened = OrderOpened(order_id=state.order_id, lines=lines, expires_ms=state.deadline_ms)
        return _step(state, opened, answer=Answer(Outcome.DONE, status))

    def _advance(self, state: OrderState, heard: Heard, now_ms: int) -> Step:
        status = state.status
        match heard:
            case StockReserved() if state.withdrawn:  # Given up before this: held again by a copy.
                return Step(facts=(_decision(state.order_id, status, heard.skus, state.reason),))
            case StockReserved() | StockRefused() if status is not OrderStatus.PENDING:
                return _settle(state, heard)
            case StockReserved():
                return _reserve(state, heard, now_ms)
            case StockRefused():
                state = _without(state, heard.skus)
                reason = f"out_of_stock: {heard.missing_sku}"
                return _close(state, OrderStatus.REJECTED, heard, now_ms, reason)
            case CancelAsked() if state.withdrawn and status is OrderStatus.NEEDS_ATTENTION:
                return self._retry(state, heard, now_ms)  # Undoing it got stuck: try again.
            case CancelAsked():
                return _cancel(state, heard, now_ms)
            case RetryAsked():
                return self._retry(state, heard, now_ms)
            case ReservationExpired() if state.withdrawn or status in TERMINAL:
                return Step(facts=(_decision(state.order_id, status, heard.skus, state.reason),))
            case Due() if state.due_ms is not None and state.due_ms <= now_ms:
                return _withdraw(state, heard, now_ms, "reservation_expired")
            case (
                PaymentTaken()
                | PaymentRefused()
                | PaymentUnknown()
                | PaymentRefunded()
                | PaymentVoided()
            ):
                return _advance_payment(state, heard, now_ms)
            case _:
                return NOTHING  # A late copy of a fact already acted on.

    def _retry(self, state: OrderState, heard: CancelAsked | RetryAsked, now_ms: int) -> Step:
        if state.status is not OrderStatus.NEEDS_ATTENTION:
            return _answer(Outcome.TOO_LATE, state.status)
        deadline_ms = now_ms + self._ttl_ms  # The old one has passed, and would cancel at once.
        state = _move(state, OrderStatus.RESERVED, heard, now_ms, deadline_ms=deadline_ms)
        retried = PaymentRetried(order_id=state.order_id)
        return _step(state, retried, answer=Answer(Outcome.DONE, state.status))


def _reserve(state: OrderState, heard: StockReserved, now_ms: int) -> Step:
    state = _without(state, heard.skus)
    if state.awaited:
        return Step({state.order_id: state}, can_wait=True)
    state = _move(state, OrderStatus.RESERVED, heard, now_ms)
    reserved = OrderReserved(
        order_id=state.order_id,
        amount_minor=state.total_minor,
        currency=state.currency,
        payment_token=state.payment_token,
    )
    return _step(state, reserved)


def _settle(state: OrderState, heard: StockReserved | StockRefused) -> Step:
    """An answer after the decision: what it holds is released, once."""
    settled = _without(state, heard.skus)
    if settled == state:
        return NOTHING
    if isinstance(heard, StockRefused):
        return Step({state.order_id: settled}, can_wait=True)
    return _step(settled, _decision(state.order_id, state.status, heard.skus, state.reason))


def _cancel(state: OrderState, heard: CancelAsked, now_ms: int) -> Step:
    if state.status is OrderStatus.CANCELLED or state.withdrawn:
        return _answer(Outcome.DONE, state.status)
    if state.status in TERMINAL:
        return _answer(Outcome.TOO_LATE, state.status)
    return _withdraw(state, heard, now_ms, "cancel_asked")


def _withdraw(state: OrderState, heard: CancelAsked | Due, now_ms: int, reason: str) -> Step:
    """Cancel: at once where no payment was asked for; otherwise as soon as the payment is known to be undone."""
    if state.status is OrderStatus.PENDING:
        return _close(state, OrderStatus.CANCELLED, heard, now_ms, reason)
    state = _move(state, state.status, heard, now_ms, withdrawn=True, reason=reason)
    cancelled = OrderCancelled(order_id=state.order_id, skus=state.skus, reason=reason)
    return _step(state, cancelled, answer=Answer(Outcome.DONE, state.status))


def _advance_payment(state: OrderState, heard: Message, now_ms: int) -> Step:
    status = state.status
    match heard:
        case PaymentTaken() if status in UNDONE:
            return Step(facts=(_give_back(state.order_id, state.reason),))
        case PaymentTaken() if status is OrderStatus.CONFIRMED:
            if heard.charge_id != state.charge_id:
                return Step(facts=(_give_back(state.order_id, "charged twice"),))
            return Step(facts=(_confirm_again(state.order_id),))
        case _ if status not in (OrderStatus.RESERVED, OrderStatus.NEEDS_ATTENTION):
            return NOTHING  # A late copy of a fact already acted on.
        case PaymentTaken():
            return _paid(state, heard, now_ms)
        case PaymentRefused():
            return _refused(state, heard, now_ms)
        case PaymentUnknown() if status is OrderStatus.RESERVED or state.reason != heard.detail:
            parked = _move(state, OrderStatus.NEEDS_ATTENTION, heard, now_ms, reason=heard.detail)
            return _step(parked)
        case PaymentRefunded() | PaymentVoided() if state.withdrawn:
            refund_id = heard.refund_id if isinstance(heard, PaymentRefunded) else ""
            return _step(_move(state, OrderStatus.CANCELLED, heard, now_ms, refund_id=refund_id))
        case _:
            return NOTHING


def _paid(state: OrderState, heard: PaymentTaken, now_ms: int) -> Step:
    if state.withdrawn:
        state = msgspec.structs.replace(state, charge_id=heard.charge_id)
        return _step(state, _give_back(state.order_id, state.reason))
    state = _move(state, OrderStatus.CONFIRMED, heard, now_ms, charge_id=heard.charge_id, reason="")
    return _step(state, OrderConfirmed(order_id=state.order_id, skus=state.skus))


def _refused(state: OrderState, heard: PaymentRefused, now_ms: int) -> Step:
    if state.withdrawn:
        return _step(_move(state, OrderStatus.CANCELLED, heard, now_ms))
    if heard.code == DEADLINE_PASSED:
        return _close(state, OrderStatus.CANCELLED, heard, now_ms, "payment_deadline_passed")
    return _close(state, OrderStatus.REJECTED, heard, now_ms, f"payment_refused: {heard.code}")


def _after(remains: Remains, heard: Heard) -> Step:
    """What is said of an order of which only the remains are known."""
    status = CODES[remains.code]
    match heard:
        case OrderCreated():
            same = digest_of(heard) == remains.digest
            return _answer(Outcome.DONE if same else Outcome.REUSED, status)
        case CancelAsked():
            cancelled = status is OrderStatus.CANCELLED
            return _answer(Outcome.DONE if cancelled else Outcome.TOO_LATE, status)
        case RetryAsked():
            return _answer(Outcome.TOO_LATE, status)
        case StockReserved() if status in UNDONE:
            return Step(facts=(_decision(heard.order_id, status, heard.skus, "late"),))
        case StockReserved():  # What it held is sold, and is on its way out before this: held again by a copy.
            release = OrderRejected(order_id=heard.order_id, skus=heard.skus, reason="held twice")
            return Step(facts=(release,))
        case ReservationExpired():
            return Step(facts=(_decision(heard.order_id, status, heard.skus, "late"),))
        case PaymentTaken() if status in UNDONE:
            return Step(facts=(_give_back(heard.order_id, "late"),))
        case PaymentTaken():
            return Step(facts=(_confirm_again(heard.order_id),))
        case _:
            return NOTHING


def _miss(heard: Heard) -> Step:
    """Something about an order that nobody placed, or that RETENTION has forgotten."""
    match heard:
        case CancelAsked() | RetryAsked():
            return _answer(Outcome.UNKNOWN, "")
        case StockReserved() | ReservationExpired():
            cancelled = OrderStatus.CANCELLED
            return Step(facts=(_decision(heard.order_id, cancelled, heard.skus, "unknown"),))
        case _:
            return NOTHING


def _decision(order_id: str, status: OrderStatus, skus: list[str], reason: str) -> Message:
    """What inventory is told of a finished order; of one that it was told before, it holds nothing any more."""
    match status:
        case OrderStatus.CONFIRMED:
            return OrderConfirmed(order_id=order_id, skus=skus)
        case OrderStatus.REJECTED:
            return OrderRejected(order_id=order_id, skus=skus, reason=reason)
        case _:
            return OrderCancelled(order_id=order_id, skus=skus, reason=reason)


def _confirm_again(order_id: str) -> OrderConfirmed:
    """To payment alone, which has asked about money that it had forgotten: a fact that it heard before was replayed."""
    return OrderConfirmed(order_id=order_id)


def _give_back(order_id: str, reason: str) -> OrderCancelled:
    """Addressed to payment alone: it names no stock."""
    return OrderCancelled(order_id=order_id, reason=reason or "late")


def _close(state: OrderState, status: OrderStatus, heard: Heard, now_ms: int, reason: str) -> Step:
    """End an order whose payment is not in doubt, and have its stock released."""
    state = _move(state, status, heard, now_ms, reason=reason)
    answer = Answer(Outcome.DONE, status) if isinstance(heard, CancelAsked) else None
    return _step(state, _decision(state.order_id, status, state.skus, reason), answer=answer)


def _move(
    state: OrderState, status: OrderStatus, heard: Heard, now_ms: int, **changes: Any
) -> OrderState:
    event = "DeadlinePassed" if isinstance(heard, Due) else type(heard).__name__
    history = (*state.history, Event(now_ms, event, status))
    return msgspec.structs.replace(state, status=status, history=history, **changes)


def _without(state: OrderState, skus: list[str]) -> OrderState:
    awaited = tuple(sku for sku in state.awaited if sku not in skus)
    return msgspec.structs.replace(state, awaited=awaited)


def _step(state: OrderState, *facts: Message, answer: Answer | None = None) -> Step:
    return Step({state.order_id: state}, facts, answer)


def _answer(outcome: Outcome, status: str) -> Step:
    return Step(answer=Answer(outcome, status))
