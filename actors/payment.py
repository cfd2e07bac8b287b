"""Payment: take the money once, give it back once, and never guess.

A payment is *doing* one thing (charge, ask, refund) or resting (taken, parked), and may pause before it does it again.
What it is doing decides the call that its state owes, so a recovered state calls again by itself, with the
same idempotency key. An unknown outcome is retried until the deadline with that key, then asked about by reference;
"nothing was taken" is believed only when the last attempt to take it is older than `settle_ms`.

| doing | hears | then does | owes |
|---|---|---|---|
| - | OrderReserved | charge | |
| - | OrderCancelled | | PaymentVoided: nothing was begun, or all of it is over |
| charge, ask | captured | taken, or refund where cancelled | PaymentTaken |
| charge | declined | forgets it | PaymentRefused, or PaymentVoided where cancelled |
| charge | unknown, not charged | pauses and charges again; asks where cancelled or past the deadline | |
| ask | not charged | forgets it | PaymentVoided where cancelled, else PaymentRefused (deadline_passed) |
| ask, refund | unknown (refund: also declined) | pauses and goes on; parked past the deadline | PaymentUnknown |
| refund | refunded | forgets it | PaymentRefunded |
| taken | OrderConfirmed | forgets it | |
| taken, parked with a charge | OrderCancelled | refund | |
| charge (paused), parked | OrderCancelled | ask | |
| parked | PaymentRetried | ask, or refund where one was under way | |
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import msgspec
from betterproto import Message

from actors.actor import (
    NOTHING,
    Call,
    CallAnswered,
    CallOutcome,
    Charge,
    Due,
    Enquiry,
    Heard,
    Refund,
    State,
    States,
    Step,
    View,
)
from actors.order import DEADLINE_PASSED
from messages.generated.orders.v1 import (
    OrderCancelled,
    OrderConfirmed,
    OrderReserved,
    PaymentRefunded,
    PaymentRefused,
    PaymentRetried,
    PaymentTaken,
    PaymentUnknown,
    PaymentVoided,
)
from messages.routing import KeysOf, by_order

PAUSE_MIN_MS = 1_000  # The client has already retried within seconds when it says "unknown".
PAUSE_MAX_MS = 5_000  # No longer: the client itself spares a provider that is out of reach.


class Doing(StrEnum):
    """What a payment is about."""

    CHARGE = "charge"
    ASK = "ask"
    REFUND = "refund"
    TAKEN = "taken"
    PARKED = "parked"


class PaymentState(State, frozen=True):
    """One order's payment, until both sides have nothing more to say about it."""

    order_id: str
    amount_minor: int
    currency: str
    token: str
    doing: Doing
    deadline_ms: int
    resumes_ms: int = 0
    """When a pause ends; 0 while there is none."""
    attempts: int = 0
    tried_ms: int = 0
    """When the newest attempt to take the money came back without a result."""
    cancelled: bool = False
    charge_id: str = ""

    @property
    def due_ms(self) -> int | None:
        return self.resumes_ms or None

    @property
    def call(self) -> Call | None:
        if self.resumes_ms:
            return None
        match self.doing:
            case Doing.CHARGE:
                return Charge(
                    key=f"{self.order_id}:charge",
                    reference=self.order_id,
                    amount_minor=self.amount_minor,
                    currency=self.currency,
                    token=self.token,
                    again=self.attempts > 0,
                )
            case Doing.ASK:
                return Enquiry(self.order_id)
            case Doing.REFUND:
                return Refund(
                    key=f"{self.order_id}:refund",
                    reference=self.order_id,
                    charge_id=self.charge_id,
                    amount_minor=self.amount_minor,
                )
            case _:
                return None


class PaymentActor:
    """Hears what is to be paid for.

    `deadline_ms` bounds one payment (and, anew, one refund); `settle_ms` is how long after an attempt to charge its
    silence is believed to mean "not charged": longer than the provider can still be working on it.
    """

    name: ClassVar[str] = "payment"
    hears: ClassVar[Mapping[type[Message], KeysOf]] = dict.fromkeys(
        (OrderReserved, OrderConfirmed, OrderCancelled, PaymentRetried), by_order
    )
    states: ClassVar[Any] = PaymentState
    view: ClassVar[View] = None

    def __init__(self, *, deadline_ms: int, settle_ms: int) -> None:
        self._deadline_ms, self._settle_ms = deadline_ms, settle_ms

    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        """One payment's next state, and what the order is told."""
        order_id = heard.key if isinstance(heard, Due | CallAnswered) else heard.order_id  # type: ignore[attr-defined]  # All it hears has one.
        state: PaymentState | None = states.get(order_id)
        if state is None:
            return self._begin(heard, now_ms)
        match heard:
            case CallAnswered() if heard.call == state.call:
                return self._answered(state, heard, now_ms)
            case Due() if state.resumes_ms and state.resumes_ms <= now_ms:
                return _keep(state, resumes_ms=0)
            case OrderConfirmed() if state.doing is Doing.TAKEN:
                return Step({order_id: None}, can_wait=True)
            case OrderCancelled() if not state.cancelled:
                return self._cancel(state, now_ms)
            case PaymentRetried() if state.doing is Doing.PARKED:
                return self._resume(state, now_ms)
            case _:
                return NOTHING  # A late copy of a fact already acted on.

    def _begin(self, heard: Heard, now_ms: int) -> Step:
        match heard:
            case OrderReserved():
                state = PaymentState(
                    order_id=heard.order_id,
                    amount_minor=heard.amount_minor,
                    currency=heard.currency,
                    token=heard.payment_token,
                    doing=Doing.CHARGE,
                    deadline_ms=now_ms + self._deadline_ms,
                )
                return _keep(state)
            case OrderCancelled():
                # An order that waits for its payment to be undone hears of it even if its request never came through.
                return Step(facts=(PaymentVoided(order_id=heard.order_id),))
            case _:
                return NOTHING

    def _answered(self, state: PaymentState, heard: CallAnswered, now_ms: int) -> Step:
        order_id = state.order_id
        match state.doing, heard.outcome:
            case ((Doing.CHARGE | Doing.ASK), CallOutcome.CAPTURED):
                return self._captured(state, heard.detail, now_ms)
            case Doing.CHARGE, CallOutcome.DECLINED:
                return _end(state, PaymentRefused(order_id=order_id, code=heard.detail))
            case Doing.ASK, CallOutcome.NOT_CHARGED if now_ms >= state.tried_ms + self._settle_ms:
                return _end(state, PaymentRefused(order_id=order_id, code=DEADLINE_PASSED))
            case Doing.REFUND, CallOutcome.REFUNDED:
                refunded = PaymentRefunded(order_id=order_id, refund_id=heard.detail)
                return Step({order_id: None}, (refunded,))
            case Doing.CHARGE, _:
                return self._charge_unknown(state, now_ms)
            case _:
                return self._still_unknown(state, heard, now_ms)

    def _captured(self, state: PaymentState, charge_id: str, now_ms: int) -> Step:
        if state.cancelled:
            return self._refund(state, charge_id, now_ms)
        taken = PaymentTaken(order_id=state.order_id, charge_id=charge_id)
        return _keep(state, taken, doing=Doing.TAKEN, charge_id=charge_id)

    def _charge_unknown(self, state: PaymentState, now_ms: int) -> Step:
        state = msgspec.structs.replace(state, tried_ms=now_ms)
        pause_end_ms = now_ms + _pause_ms(state.attempts)
        if state.cancelled or pause_end_ms >= state.deadline_ms:
            return self._ask(state, now_ms)
        return _keep(state, attempts=state.attempts + 1, resumes_ms=pause_end_ms)

    def _still_unknown(self, state: PaymentState, heard: CallAnswered, now_ms: int) -> Step:
        pause_end_ms = now_ms + _pause_ms(state.attempts)
        if pause_end_ms < state.deadline_ms:
            return _keep(state, attempts=state.attempts + 1, resumes_ms=pause_end_ms)
        detail = f"{state.doing}: {heard.outcome}: {heard.detail}"
        unknown = PaymentUnknown(order_id=state.order_id, detail=detail)
        return _keep(state, unknown, doing=Doing.PARKED)

    def _cancel(self, state: PaymentState, now_ms: int) -> Step:
        state = msgspec.structs.replace(state, cancelled=True)
        match state.doing:
            case Doing.TAKEN:
                return self._refund(state, state.charge_id, now_ms)
            case Doing.PARKED:
                return self._resume(state, now_ms)
            case Doing.CHARGE if state.resumes_ms:
                return self._ask(state, now_ms)
            case _:
                return _keep(state)  # A call is under way; its answer decides.

    def _resume(self, state: PaymentState, now_ms: int) -> Step:
        if state.charge_id:
            return self._refund(state, state.charge_id, now_ms)
        return self._ask(state, now_ms)

    def _ask(self, state: PaymentState, now_ms: int) -> Step:
        """From now on take nothing, and ask once the silence since the last attempt means something."""
        settled_ms = state.tried_ms + self._settle_ms
        return _keep(
            state,
            doing=Doing.ASK,
            attempts=0,
            deadline_ms=max(state.deadline_ms, now_ms + self._deadline_ms),
            resumes_ms=settled_ms if settled_ms > now_ms else 0,
        )

    def _refund(self, state: PaymentState, charge_id: str, now_ms: int) -> Step:
        return _keep(
            state,
            doing=Doing.REFUND,
            charge_id=charge_id,
            attempts=0,
            resumes_ms=0,
            deadline_ms=now_ms + self._deadline_ms,
        )


def _end(state: PaymentState, refused: PaymentRefused) -> Step:
    """Nothing was taken and nothing will be: say so, as the order asked, and forget it."""
    voided = PaymentVoided(order_id=state.order_id)
    return Step({state.order_id: None}, (voided if state.cancelled else refused,))


def _keep(state: PaymentState, *facts: Message, **changes: Any) -> Step:
    return Step({state.order_id: msgspec.structs.replace(state, **changes)}, facts)


def _pause_ms(attempts: int) -> int:
    return min(PAUSE_MAX_MS, PAUSE_MIN_MS << min(attempts, 10))
