"""Every move of a payment, one row each; whatever stands in no row changes nothing."""

from typing import Any

import msgspec
import pytest

from actors.actor import CallAnswered, CallOutcome, Charge, Due, Enquiry, Heard, Refund
from actors.payment import PAUSE_MAX_MS, PAUSE_MIN_MS, Doing, PaymentActor, PaymentState
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

NOW = 1_700_000_000_000
LIMIT_MS, SETTLE_MS = 900_000, 20_000
PAYMENT = PaymentActor(deadline_ms=LIMIT_MS, settle_ms=SETTLE_MS)

CHARGING = PaymentState("o-1", 1530, "GBP", "tok_ok", Doing.CHARGE, deadline_ms=NOW + LIMIT_MS)


def but(state: PaymentState, **changes: Any) -> PaymentState:
    return msgspec.structs.replace(state, **changes)


WAITED = but(CHARGING, attempts=3, tried_ms=NOW - 8000, resumes_ms=NOW)
"""A charge that was tried three times, and whose pause ends now."""
ASKING = but(CHARGING, doing=Doing.ASK, tried_ms=NOW - SETTLE_MS)
REFUNDING = but(CHARGING, doing=Doing.REFUND, cancelled=True, charge_id="ch-1")
TAKEN = but(CHARGING, doing=Doing.TAKEN, charge_id="ch-1", deadline_ms=NOW - 5000)
PARKED = but(ASKING, doing=Doing.PARKED, deadline_ms=NOW)
PARKED_REFUND = but(REFUNDING, doing=Doing.PARKED, deadline_ms=NOW)

STATES: dict[str, PaymentState | None] = {
    "-": None,
    "charge": CHARGING,
    "charge, cancelled": but(CHARGING, cancelled=True, deadline_ms=NOW + 5000),
    "charge, late": but(CHARGING, deadline_ms=NOW + PAUSE_MIN_MS),
    "charge, paused": WAITED,
    "ask": ASKING,
    "ask, cancelled": but(ASKING, cancelled=True),
    "ask, unsettled": but(ASKING, tried_ms=NOW - SETTLE_MS + 1),
    "ask, late": but(ASKING, deadline_ms=NOW + PAUSE_MIN_MS),
    "refund": REFUNDING,
    "refund, late": but(REFUNDING, deadline_ms=NOW + PAUSE_MIN_MS),
    "taken": TAKEN,
    "parked": PARKED,
    "parked, cancelled": but(PARKED, cancelled=True),
    "parked refund": PARKED_REFUND,
}

HEARD: dict[str, Heard | CallOutcome] = {
    "OrderReserved": OrderReserved("o-1", 1530, "GBP", "tok_ok"),
    "OrderConfirmed": OrderConfirmed("o-1", ["hat"]),
    "OrderCancelled": OrderCancelled("o-1", ["hat"], "cancel_asked"),
    "PaymentRetried": PaymentRetried("o-1"),
    "its pause ends": Due("o-1"),
    "captured": CallOutcome.CAPTURED,
    "declined": CallOutcome.DECLINED,
    "refunded": CallOutcome.REFUNDED,
    "not charged": CallOutcome.NOT_CHARGED,
    "unknown": CallOutcome.UNKNOWN,
}

took = PaymentTaken("o-1", "ch-1")
refused = PaymentRefused("o-1", "ch-1")  # The answer's detail is "ch-1" in every row.
timed_out = PaymentRefused("o-1", "deadline_passed")
voided = PaymentVoided("o-1")
returned = PaymentRefunded("o-1", "ch-1")
PAUSED = {"attempts": 1, "resumes_ms": NOW + PAUSE_MIN_MS}
ASKED = {"doing": Doing.ASK, "attempts": 0, "resumes_ms": 0, "deadline_ms": NOW + LIMIT_MS}
# The attempt that has just come back unknown may still take the money; so may one of eight seconds ago.
ASKED_LATER = {**ASKED, "tried_ms": NOW, "resumes_ms": NOW + SETTLE_MS}
ASKED_SOON = {**ASKED, "resumes_ms": NOW - 8000 + SETTLE_MS}
REFUNDED = {**ASKED, "doing": Doing.REFUND, "charge_id": "ch-1"}
UNSURE = {**PAUSED, "tried_ms": NOW}
GONE = None

# (what it does, what it hears): (what changes, or GONE; what it owes)
MOVES: dict[tuple[str, str], tuple[dict[str, Any] | None, tuple[object, ...]]] = {
    ("-", "OrderReserved"): ({}, ()),
    ("-", "OrderCancelled"): (GONE, (voided,)),
    ("charge", "captured"): ({"doing": Doing.TAKEN, "charge_id": "ch-1"}, (took,)),
    ("charge", "declined"): (GONE, (refused,)),
    ("charge", "refunded"): (UNSURE, ()),
    ("charge", "not charged"): (UNSURE, ()),
    ("charge", "unknown"): (UNSURE, ()),
    ("charge", "OrderCancelled"): ({"cancelled": True}, ()),
    ("charge, cancelled", "captured"): (REFUNDED, ()),
    ("charge, cancelled", "declined"): (GONE, (voided,)),
    ("charge, cancelled", "refunded"): (ASKED_LATER, ()),
    ("charge, cancelled", "not charged"): (ASKED_LATER, ()),
    ("charge, cancelled", "unknown"): (ASKED_LATER, ()),
    ("charge, late", "captured"): ({"doing": Doing.TAKEN, "charge_id": "ch-1"}, (took,)),
    ("charge, late", "declined"): (GONE, (refused,)),
    ("charge, late", "refunded"): (ASKED_LATER, ()),
    ("charge, late", "not charged"): (ASKED_LATER, ()),
    ("charge, late", "unknown"): (ASKED_LATER, ()),
    ("charge, late", "OrderCancelled"): ({"cancelled": True}, ()),
    ("charge, paused", "its pause ends"): ({"resumes_ms": 0}, ()),
    ("charge, paused", "OrderCancelled"): ({**ASKED_SOON, "cancelled": True}, ()),
    ("ask", "captured"): ({"doing": Doing.TAKEN, "charge_id": "ch-1"}, (took,)),
    ("ask", "not charged"): (GONE, (timed_out,)),
    ("ask", "declined"): (PAUSED, ()),
    ("ask", "refunded"): (PAUSED, ()),
    ("ask", "unknown"): (PAUSED, ()),
    ("ask", "OrderCancelled"): ({"cancelled": True}, ()),
    ("ask, cancelled", "captured"): (REFUNDED, ()),
    ("ask, cancelled", "not charged"): (GONE, (voided,)),
    ("ask, cancelled", "declined"): (PAUSED, ()),
    ("ask, cancelled", "refunded"): (PAUSED, ()),
    ("ask, cancelled", "unknown"): (PAUSED, ()),
    ("ask, unsettled", "captured"): ({"doing": Doing.TAKEN, "charge_id": "ch-1"}, (took,)),
    ("ask, unsettled", "not charged"): (PAUSED, ()),
    ("ask, unsettled", "declined"): (PAUSED, ()),
    ("ask, unsettled", "refunded"): (PAUSED, ()),
    ("ask, unsettled", "unknown"): (PAUSED, ()),
    ("ask, unsettled", "OrderCancelled"): ({"cancelled": True}, ()),
    ("ask, late", "captured"): ({"doing": Doing.TAKEN, "charge_id": "ch-1"}, (took,)),
    ("ask, late", "not charged"): (GONE, (timed_out,)),
    ("ask, late", "declined"): (
        {"doing": Doing.PARKED},
        (PaymentUnknown("o-1", "ask: declined: ch-1"),),
    ),
    ("ask, late", "refunded"): (
        {"doing": Doing.PARKED},
        (PaymentUnknown("o-1", "ask: refunded: ch-1"),),
    ),
    ("ask, late", "unknown"): (
        {"doing": Doing.PARKED},
        (PaymentUnknown("o-1", "ask: unknown: ch-1"),),
    ),
    ("ask, late", "OrderCancelled"): ({"cancelled": True}, ()),
    ("refund", "refunded"): (GONE, (returned,)),
    ("refund", "captured"): (PAUSED, ()),
    ("refund", "declined"): (PAUSED, ()),
    ("refund", "not charged"): (PAUSED, ()),
    ("refund", "unknown"): (PAUSED, ()),
    ("refund, late", "refunded"): (GONE, (returned,)),
    ("refund, late", "captured"): (
        {"doing": Doing.PARKED},
        (PaymentUnknown("o-1", "refund: captured: ch-1"),),
    ),
    ("refund, late", "declined"): (
        {"doing": Doing.PARKED},
        (PaymentUnknown("o-1", "refund: declined: ch-1"),),
    ),
    ("refund, late", "not charged"): (
        {"doing": Doing.PARKED},
        (PaymentUnknown("o-1", "refund: not_charged: ch-1"),),
    ),
    ("refund, late", "unknown"): (
        {"doing": Doing.PARKED},
        (PaymentUnknown("o-1", "refund: unknown: ch-1"),),
    ),
    ("taken", "OrderConfirmed"): (GONE, ()),
    ("taken", "OrderCancelled"): ({**REFUNDED, "cancelled": True}, ()),
    ("parked", "OrderCancelled"): ({**ASKED, "cancelled": True}, ()),
    ("parked", "PaymentRetried"): (ASKED, ()),
    ("parked, cancelled", "PaymentRetried"): (ASKED, ()),
    ("parked refund", "PaymentRetried"): (REFUNDED, ()),
}


def heard_by(state: PaymentState | None, name: str) -> Heard:
    """What is heard; an answer is to the call that the state owes, or to a charge that was owed once."""
    heard = HEARD[name]
    if not isinstance(heard, CallOutcome):
        return heard
    call = (state and state.call) or CHARGING.call
    assert call is not None
    return CallAnswered("o-1", call, heard, "ch-1")


@pytest.mark.parametrize("name", HEARD)
@pytest.mark.parametrize("doing", STATES)
def test_a_payment_moves_as_its_table_says_and_not_otherwise(
    given: Any, doing: str, name: str
) -> None:
    state = STATES[doing]
    after = given(PAYMENT, {"o-1": state} if state else {}).at(NOW)
    after.when(heard_by(state, name))
    changes, facts = MOVES.get((doing, name), ({} if state else GONE, ()))
    after.then(*facts)
    assert after.states == ({} if changes is GONE else {"o-1": but(state or CHARGING, **changes)})


@pytest.mark.parametrize(("doing", "name"), [move for move in MOVES if move[0] != "-"])
def test_a_second_copy_changes_nothing(given: Any, doing: str, name: str) -> None:
    state = STATES[doing]
    heard = heard_by(state, name)
    after = given(PAYMENT, {"o-1": state}).at(NOW).when(heard)
    once = dict(after.states)
    after.when(heard)
    assert after.states == once
    assert after.facts in (
        [],
        [voided],
    )  # Of what is over, it may be said again that nothing was kept.


def test_nobody_waits_for_a_payment_to_be_forgotten() -> None:
    assert PAYMENT.react({"o-1": TAKEN}, OrderConfirmed("o-1"), NOW).can_wait


def test_a_state_is_packed_by_position_so_that_old_logs_stay_readable() -> None:
    """Fields are added at the end, with a default; nothing in this row ever moves."""
    row = ["PaymentState", "o-1", 1530, "GBP", "tok_ok", "refund"]
    rest = [NOW + LIMIT_MS, 0, 0, 0, True, "ch-1"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(REFUNDING)) == row + rest
    packed = msgspec.msgpack.encode(REFUNDING)
    assert msgspec.msgpack.decode(packed, type=PAYMENT.states) == REFUNDING


# --- calls ---


def test_every_attempt_to_take_or_return_money_has_the_same_key() -> None:
    assert CHARGING.call == Charge("o-1:charge", "o-1", 1530, "GBP", "tok_ok")
    assert but(WAITED, resumes_ms=0).call == CHARGING.call
    assert REFUNDING.call == Refund("o-1:refund", "o-1", "ch-1", 1530)
    assert ASKING.call == Enquiry("o-1")


@pytest.mark.parametrize("state", [TAKEN, PARKED, PARKED_REFUND, WAITED])
def test_a_payment_that_rests_or_pauses_calls_nobody(state: PaymentState) -> None:
    assert state.call is None


def test_only_a_pause_has_a_deadline() -> None:
    assert WAITED.due_ms == NOW
    assert CHARGING.due_ms is None


def test_a_pause_is_not_ended_early(given: Any) -> None:
    after = given(PAYMENT, {"o-1": WAITED}).at(NOW - 1).when(Due("o-1")).then()
    assert after.states == {"o-1": WAITED}


def test_the_answer_to_another_call_changes_nothing(given: Any) -> None:
    assert CHARGING.call is not None
    late = CallAnswered("o-1", CHARGING.call, CallOutcome.CAPTURED, "ch-1")
    for state in (ASKING, REFUNDING, WAITED, TAKEN):
        assert given(PAYMENT, {"o-1": state}).when(late).then().states == {"o-1": state}


def test_pauses_double_up_to_seconds_and_the_money_is_asked_after_before_the_deadline(
    given: Any,
) -> None:
    assert CHARGING.call is not None
    after = given(PAYMENT, {"o-1": CHARGING}).at(NOW)
    pauses = []
    while after.states["o-1"].doing is Doing.CHARGE:
        after.when(CallAnswered("o-1", CHARGING.call, CallOutcome.UNKNOWN)).then()
        began, after.now_ms = after.now_ms, after.states["o-1"].resumes_ms
        pauses.append(after.now_ms - began)
        after.when(Due("o-1")).then()
    assert pauses[:5] == [1000, 2000, 4000, PAUSE_MAX_MS, PAUSE_MAX_MS]
    assert pauses[-1] == SETTLE_MS
    assert NOW < after.now_ms - SETTLE_MS < NOW + LIMIT_MS
    assert after.states["o-1"].call == Enquiry("o-1")


def test_a_question_without_an_answer_is_parked_after_a_bounded_time_and_told(given: Any) -> None:
    after = given(PAYMENT, {"o-1": ASKING}).at(NOW)
    for _ in range(LIMIT_MS // PAUSE_MAX_MS + 10):
        after.when(CallAnswered("o-1", Enquiry("o-1"), CallOutcome.UNKNOWN, "timed out"))
        if after.states["o-1"].doing is Doing.PARKED:
            break
        after.now_ms = after.states["o-1"].resumes_ms
        after.when(Due("o-1"))
    after.then(PaymentUnknown("o-1", "ask: unknown: timed out"))
    assert NOW < after.now_ms < NOW + LIMIT_MS
