"""Every move of an order, one row each; whatever stands in no row changes nothing and owes nothing."""

from typing import Any

import msgspec
import pytest
from betterproto import Message

from actors.actor import Answer, Due, Heard, Outcome, Remains
from actors.order import DEADLINE_PASSED, OrderActor
from actors.order_state import Event, Item, OrderState, OrderStatus, digest_of
from messages.generated.orders.v1 import (
    CancelAsked,
    Line,
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderItem,
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

NOW = 1_700_000_000_000
TTL_MS = 1_800_000
ORDER = OrderActor(reservation_ttl_ms=TTL_MS)
CREATED = OrderCreated(
    order_id="o-1",
    customer_id="17850",
    items=[OrderItem("hat", 6, 255), OrderItem("cup", 2, 100)],
    currency="GBP",
    total_minor=1730,
    payment_token="tok_ok",
)
PENDING = OrderState(
    order_id="o-1",
    customer_id="17850",
    currency="GBP",
    total_minor=1730,
    items=(Item("hat", 6, 255), Item("cup", 2, 100)),
    payment_token="tok_ok",
    digest=digest_of(CREATED),
    deadline_ms=NOW,
    status=OrderStatus.PENDING,
    history=(Event(NOW - TTL_MS, "OrderCreated", OrderStatus.PENDING),),
    awaited=("cup",),
)
"""The hats are held, the cups not yet answered for, and the deadline is now."""


def but(state: OrderState, **changes: Any) -> OrderState:
    return msgspec.structs.replace(state, **changes)


RESERVED = but(PENDING, status=OrderStatus.RESERVED, awaited=())
PARKED = but(RESERVED, status=OrderStatus.NEEDS_ATTENTION, reason="ask: unknown: timed out")
STATES: dict[str, OrderState | Remains | None] = {
    "-": None,
    "pending": PENDING,
    "reserved": RESERVED,
    "withdrawn": but(RESERVED, withdrawn=True, reason="cancel_asked"),
    "parked": PARKED,
    "parked, withdrawn": but(PARKED, withdrawn=True),
    "rejected, one answer awaited": but(PENDING, status=OrderStatus.REJECTED, reason="why"),
    "cancelled, one answer awaited": but(PENDING, status=OrderStatus.CANCELLED, reason="why"),
    "confirmed": Remains(3, PENDING.digest),
    "rejected": Remains(4, PENDING.digest),
    "cancelled": Remains(5, PENDING.digest),
}
HEARD: dict[str, Heard] = {
    "OrderCreated": CREATED,
    "CancelAsked": CancelAsked("o-1"),
    "RetryAsked": RetryAsked("o-1"),
    "StockReserved": StockReserved("o-1", ["cup"]),
    "StockRefused": StockRefused("o-1", ["cup"], "cup"),
    "ReservationExpired": ReservationExpired("o-1", ["cup"]),
    "its deadline": Due("o-1"),
    "PaymentTaken": PaymentTaken("o-1", "ch-1"),
    "PaymentRefused": PaymentRefused("o-1", "card_declined"),
    "PaymentRefused, late": PaymentRefused("o-1", DEADLINE_PASSED),
    "PaymentUnknown": PaymentUnknown("o-1", "ask: unknown: timed out"),
    "PaymentUnknown, again": PaymentUnknown("o-1", "refund: unknown: reset"),
    "PaymentRefunded": PaymentRefunded("o-1", "re-1"),
    "PaymentVoided": PaymentVoided("o-1"),
}

SKUS = ["hat", "cup"]
ALL_LINES = [Line("hat", 6), Line("cup", 2)]
CHARGE_IT = OrderReserved("o-1", 1730, "GBP", "tok_ok")
SELL = OrderConfirmed("o-1", SKUS)


def reject(reason: str, skus: list[str] = SKUS) -> OrderRejected:
    return OrderRejected("o-1", skus, reason)


def cancel(reason: str, skus: list[str] = SKUS) -> OrderCancelled:
    return OrderCancelled("o-1", skus, reason)


# (where it stands, what it hears): (where it stands then, what it owes)
MOVES: dict[tuple[str, str], tuple[str, tuple[Message, ...]]] = {
    ("-", "OrderCreated"): ("pending", (OrderOpened("o-1", ALL_LINES, NOW + TTL_MS),)),
    ("-", "StockReserved"): ("-", (cancel("unknown", ["cup"]),)),
    ("-", "ReservationExpired"): ("-", (cancel("unknown", ["cup"]),)),
    ("pending", "StockReserved"): ("reserved", (CHARGE_IT,)),
    ("pending", "StockRefused"): ("rejected", (reject("out_of_stock: cup"),)),
    ("pending", "CancelAsked"): ("cancelled, one answer awaited", (cancel("cancel_asked"),)),
    ("pending", "its deadline"): (
        "cancelled, one answer awaited",
        (cancel("reservation_expired"),),
    ),
    ("reserved", "PaymentTaken"): ("confirmed", (SELL,)),
    ("reserved", "PaymentRefused"): ("rejected", (reject("payment_refused: card_declined"),)),
    ("reserved", "PaymentRefused, late"): ("cancelled", (cancel("payment_deadline_passed"),)),
    ("reserved", "PaymentUnknown"): ("parked", ()),
    ("reserved", "PaymentUnknown, again"): ("parked", ()),
    ("reserved", "CancelAsked"): ("withdrawn", (cancel("cancel_asked"),)),
    ("reserved", "its deadline"): ("withdrawn", (cancel("reservation_expired"),)),
    ("withdrawn", "PaymentRefunded"): ("cancelled", ()),
    ("withdrawn", "PaymentVoided"): ("cancelled", ()),
    ("withdrawn", "PaymentRefused"): ("cancelled", ()),
    ("withdrawn", "PaymentRefused, late"): ("cancelled", ()),
    ("withdrawn", "PaymentTaken"): ("withdrawn", (cancel("cancel_asked", []),)),
    ("withdrawn", "PaymentUnknown"): ("parked, withdrawn", ()),
    ("withdrawn", "PaymentUnknown, again"): ("parked, withdrawn", ()),
    ("withdrawn", "ReservationExpired"): ("withdrawn", (cancel("cancel_asked", ["cup"]),)),
    ("withdrawn", "StockReserved"): ("withdrawn", (cancel("cancel_asked", ["cup"]),)),
    ("parked", "PaymentTaken"): ("confirmed", (SELL,)),
    ("parked", "PaymentRefused"): ("rejected", (reject("payment_refused: card_declined"),)),
    ("parked", "PaymentRefused, late"): ("cancelled", (cancel("payment_deadline_passed"),)),
    ("parked", "PaymentUnknown, again"): ("parked", ()),
    ("parked", "CancelAsked"): ("parked, withdrawn", (cancel("cancel_asked"),)),
    ("parked", "RetryAsked"): ("reserved", (PaymentRetried("o-1"),)),
    ("parked, withdrawn", "ReservationExpired"): (
        "parked, withdrawn",
        (cancel("ask: unknown: timed out", ["cup"]),),
    ),
    ("parked, withdrawn", "StockReserved"): (
        "parked, withdrawn",
        (cancel("ask: unknown: timed out", ["cup"]),),
    ),
    ("parked, withdrawn", "CancelAsked"): ("withdrawn", (PaymentRetried("o-1"),)),
    ("parked, withdrawn", "PaymentRefunded"): ("cancelled", ()),
    ("parked, withdrawn", "PaymentVoided"): ("cancelled", ()),
    ("parked, withdrawn", "PaymentRefused"): ("cancelled", ()),
    ("parked, withdrawn", "PaymentRefused, late"): ("cancelled", ()),
    ("parked, withdrawn", "PaymentTaken"): (
        "parked, withdrawn",
        (cancel("ask: unknown: timed out", []),),
    ),
    ("parked, withdrawn", "PaymentUnknown, again"): ("parked, withdrawn", ()),
    ("parked, withdrawn", "RetryAsked"): ("withdrawn", (PaymentRetried("o-1"),)),
    # Late facts: what is held for an order that is over is released, what was taken is given back.
    ("rejected, one answer awaited", "StockReserved"): ("rejected", (reject("why", ["cup"]),)),
    ("rejected, one answer awaited", "StockRefused"): ("rejected", ()),
    ("rejected, one answer awaited", "ReservationExpired"): (
        "rejected, one answer awaited",
        (reject("why", ["cup"]),),
    ),
    ("rejected, one answer awaited", "PaymentTaken"): (
        "rejected, one answer awaited",
        (cancel("why", []),),
    ),
    ("cancelled, one answer awaited", "StockReserved"): ("cancelled", (cancel("why", ["cup"]),)),
    ("cancelled, one answer awaited", "StockRefused"): ("cancelled", ()),
    ("cancelled, one answer awaited", "ReservationExpired"): (
        "cancelled, one answer awaited",
        (cancel("why", ["cup"]),),
    ),
    ("cancelled, one answer awaited", "PaymentTaken"): (
        "cancelled, one answer awaited",
        (cancel("why", []),),
    ),
    ("confirmed", "StockReserved"): ("confirmed", (OrderRejected("o-1", ["cup"], "held twice"),)),
    ("confirmed", "PaymentTaken"): ("confirmed", (OrderConfirmed("o-1"),)),
    ("confirmed", "ReservationExpired"): ("confirmed", (OrderConfirmed("o-1", ["cup"]),)),
    ("rejected", "StockReserved"): ("rejected", (reject("late", ["cup"]),)),
    ("rejected", "ReservationExpired"): ("rejected", (reject("late", ["cup"]),)),
    ("rejected", "PaymentTaken"): ("rejected", (cancel("late", []),)),
    ("cancelled", "StockReserved"): ("cancelled", (cancel("late", ["cup"]),)),
    ("cancelled", "ReservationExpired"): ("cancelled", (cancel("late", ["cup"]),)),
    ("cancelled", "PaymentTaken"): ("cancelled", (cancel("late", []),)),
}


def where(state: OrderState | Remains | None) -> str:
    """The name of a state in the tables."""
    match state:
        case None:
            return "-"
        case Remains():
            return tuple(OrderStatus)[state.code]
        case OrderState(status=OrderStatus.PENDING):
            return "pending"
        case OrderState(status=OrderStatus.RESERVED):
            return "withdrawn" if state.withdrawn else "reserved"
        case OrderState(status=OrderStatus.NEEDS_ATTENTION):
            return "parked, withdrawn" if state.withdrawn else "parked"
        case _:
            return f"{state.status}, one answer awaited"


@pytest.mark.parametrize("name", HEARD)
@pytest.mark.parametrize("standing", STATES)
def test_an_order_moves_as_its_table_says_and_not_otherwise(
    given: Any, standing: str, name: str
) -> None:
    state = STATES[standing]
    before = {} if state is None else {"o-1": state}
    after = given(ORDER, before).at(NOW).when(HEARD[name])
    if (standing, name) not in MOVES:
        after.then()
        assert after.states == before
        return
    becomes, facts = MOVES[standing, name]
    after.then(*facts)
    assert where(after.states.get("o-1")) == becomes


@pytest.mark.parametrize(("standing", "name"), MOVES)
def test_a_second_copy_changes_nothing(given: Any, standing: str, name: str) -> None:
    """But a decision may be told again: who was told before has nothing left to undo."""
    if (standing, name) == ("parked", "CancelAsked"):
        return  # Asking again is no copy: it has the undoing tried again.
    state = STATES[standing]
    after = given(ORDER, {} if state is None else {"o-1": state}).at(NOW).when(HEARD[name])
    once = dict(after.states)
    after.when(HEARD[name])
    assert after.states == once
    is_over = (
        standing.startswith(("-", "rejected", "cancelled", "confirmed")) or "withdrawn" in standing
    )
    if not (is_over or name in ("ReservationExpired", "PaymentTaken")):
        after.then()


@pytest.mark.parametrize(("standing", "name"), MOVES)
def test_every_move_is_one_more_line_of_history(given: Any, standing: str, name: str) -> None:
    state = STATES[standing]
    after = given(ORDER, {"o-1": state} if state else {}).at(NOW).when(HEARD[name]).states
    match state, after.get("o-1"):
        case OrderState() as before, OrderState() as then if where(before) != where(then):
            assert then.history[:-1] == before.history
            event = "DeadlinePassed" if name == "its deadline" else name.split(",")[0]
            assert then.history[-1] == Event(NOW, event, then.status)


@pytest.mark.parametrize(
    ("standing", "name"),
    [
        ("pending, both awaited", "StockReserved"),
        ("rejected, one answer awaited", "StockRefused"),
        ("cancelled, one answer awaited", "StockRefused"),
    ],
)
def test_nobody_waits_for_an_answer_that_decides_nothing(standing: str, name: str) -> None:
    states = {**STATES, "pending, both awaited": but(PENDING, awaited=("hat", "cup"))}
    assert ORDER.react({"o-1": states[standing]}, HEARD[name], NOW).can_wait


@pytest.mark.parametrize(("standing", "name"), [move for move in MOVES if MOVES[move][1]])
def test_a_step_that_owes_a_fact_does_not_wait(standing: str, name: str) -> None:
    state = STATES[standing]
    assert not ORDER.react({"o-1": state} if state else {}, HEARD[name], NOW).can_wait


def test_a_state_is_packed_by_position_so_that_old_logs_stay_readable() -> None:
    """Fields are added at the end, with a default; nothing in this row ever moves."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(but(RESERVED, digest=7))) == [
        "OrderState",
        "o-1",
        "17850",
        "GBP",
        1730,
        [["hat", 6, 255], ["cup", 2, 100]],
        "tok_ok",
        7,
        NOW,
        "reserved",
        [[NOW - TTL_MS, "OrderCreated", "pending"]],
        [],
        False,
        "",
        "",
        "",
    ]
    packed = msgspec.msgpack.encode(RESERVED)
    assert msgspec.msgpack.decode(packed, type=ORDER.states) == RESERVED


# --- opening ---


def test_a_new_order_is_pending_and_awaits_an_answer_for_each_line(given: Any) -> None:
    after = given(ORDER).at(NOW).when(CREATED)
    after.then(OrderOpened("o-1", ALL_LINES, NOW + TTL_MS))
    assert after.states["o-1"] == but(
        PENDING,
        awaited=("hat", "cup"),
        deadline_ms=NOW + TTL_MS,
        history=(Event(NOW, "OrderCreated", OrderStatus.PENDING),),
    )


def test_stock_is_charged_for_when_the_last_answer_is_there(given: Any) -> None:
    after = given(ORDER).at(NOW).when(CREATED)
    after.when(StockReserved("o-1", ["cup"])).then()
    after.when(StockReserved("o-1", ["cup"])).then()
    assert after.states["o-1"].awaited == ("hat",)
    after.when(StockReserved("o-1", ["hat"])).then(CHARGE_IT)


def test_one_refusal_rejects_while_other_answers_are_awaited(given: Any) -> None:
    after = given(ORDER).at(NOW).when(CREATED).when(StockRefused("o-1", ["cup"], "cup"))
    after.then(reject("out_of_stock: cup"))
    assert where(after.states["o-1"]) == "rejected, one answer awaited"
    after.when(StockReserved("o-1", ["hat"])).then(reject("out_of_stock: cup", ["hat"]))
    assert after.states["o-1"] == Remains(4, digest_of(CREATED))


def altered(**changes: Any) -> OrderCreated:
    fields = ("order_id", "customer_id", "items", "currency", "total_minor", "payment_token")
    return OrderCreated(**{**{name: getattr(CREATED, name) for name in fields}, **changes})


# --- answers ---

ANSWERS = {
    "-": ("", (Outcome.UNKNOWN, ""), (Outcome.UNKNOWN, "")),
    "pending": ("pending", (Outcome.DONE, "cancelled"), (Outcome.TOO_LATE, "pending")),
    "reserved": ("reserved", (Outcome.DONE, "reserved"), (Outcome.TOO_LATE, "reserved")),
    "withdrawn": ("reserved", (Outcome.DONE, "reserved"), (Outcome.TOO_LATE, "reserved")),
    "parked": (
        "needs_attention",
        (Outcome.DONE, "needs_attention"),
        (Outcome.DONE, "reserved"),
    ),
    "parked, withdrawn": (
        "needs_attention",
        (Outcome.DONE, "reserved"),
        (Outcome.DONE, "reserved"),
    ),
    "rejected, one answer awaited": (
        "rejected",
        (Outcome.TOO_LATE, "rejected"),
        (Outcome.TOO_LATE, "rejected"),
    ),
    "cancelled, one answer awaited": (
        "cancelled",
        (Outcome.DONE, "cancelled"),
        (Outcome.TOO_LATE, "cancelled"),
    ),
    "confirmed": ("confirmed", (Outcome.TOO_LATE, "confirmed"), (Outcome.TOO_LATE, "confirmed")),
    "rejected": ("rejected", (Outcome.TOO_LATE, "rejected"), (Outcome.TOO_LATE, "rejected")),
    "cancelled": ("cancelled", (Outcome.DONE, "cancelled"), (Outcome.TOO_LATE, "cancelled")),
}


@pytest.mark.parametrize("standing", STATES)
def test_who_asks_for_a_cancel_or_a_retry_is_told_how_it_ended(given: Any, standing: str) -> None:
    state = STATES[standing]
    before = {} if state is None else {"o-1": state}
    _, cancelled, retried = ANSWERS[standing]
    assert given(ORDER, before).at(NOW).when(CancelAsked("o-1")).answer == Answer(*cancelled)
    assert given(ORDER, before).at(NOW).when(RetryAsked("o-1")).answer == Answer(*retried)


@pytest.mark.parametrize("standing", [name for name in STATES if name != "-"])
def test_the_same_order_again_is_the_same_order_and_another_body_is_refused(
    given: Any, standing: str
) -> None:
    status = ANSWERS[standing][0]
    after = given(ORDER, {"o-1": STATES[standing]}).at(NOW)
    assert after.when(CREATED).then().answer == Answer(Outcome.DONE, status)
    assert after.when(altered(payment_token="tok_x")).then().answer == Answer(
        Outcome.REUSED, status
    )
    assert after.states == {"o-1": STATES[standing]}


# --- deadlines, cancelling, parking ---


@pytest.mark.parametrize("standing", ["pending", "reserved"])
def test_an_undecided_order_is_not_withdrawn_before_its_deadline(given: Any, standing: str) -> None:
    state = STATES[standing]
    assert isinstance(state, OrderState)
    assert state.due_ms == NOW
    assert given(ORDER, {"o-1": state}).at(NOW - 1).when(Due("o-1")).then().states == {"o-1": state}


@pytest.mark.parametrize(
    "standing", ["withdrawn", "parked", "parked, withdrawn", "cancelled, one answer awaited"]
)
def test_an_order_that_waits_for_something_else_has_no_deadline(standing: str) -> None:
    state = STATES[standing]
    assert isinstance(state, OrderState)
    assert state.due_ms is None


def test_a_retried_order_has_its_whole_time_again(given: Any) -> None:
    later = NOW + 10 * TTL_MS
    after = given(ORDER, {"o-1": PARKED}).at(later).when(RetryAsked("o-1"))
    assert after.states["o-1"].due_ms == later + TTL_MS
    after.when(Due("o-1")).then()
    after.when(ReservationExpired("o-1", ["hat"])).then()
    after.when(PaymentTaken("o-1", "ch-1")).then(SELL)


def test_a_retried_payment_may_stay_unknown_for_the_same_reason(given: Any) -> None:
    after = given(ORDER, {"o-1": PARKED}).at(NOW).when(RetryAsked("o-1"))
    after.when(PaymentUnknown("o-1", PARKED.reason)).then()
    assert where(after.states["o-1"]) == "parked"


def test_a_confirmed_order_no_longer_gives_the_reason_why_it_was_parked() -> None:
    step = ORDER.react({"o-1": PARKED}, PaymentTaken("o-1", "ch-1"), NOW)
    confirmed = step.states["o-1"]
    assert isinstance(confirmed, OrderState)
    assert (confirmed.charge_id, confirmed.reason) == ("ch-1", "")


def test_money_taken_after_the_withdrawal_is_on_record_until_it_is_back(given: Any) -> None:
    after = given(ORDER, {"o-1": but(RESERVED, awaited=("ghost",))}).at(NOW)
    after.when(CancelAsked("o-1")).then(cancel("cancel_asked"))
    after.when(PaymentTaken("o-1", "ch-1")).then(cancel("cancel_asked", []))
    after.when(PaymentRefunded("o-1", "re-1")).then()
    state = after.states["o-1"]
    assert (state.status, state.charge_id, state.refund_id) == ("cancelled", "ch-1", "re-1")
    assert state.reason == "cancel_asked"


def test_a_finished_order_is_forgotten_but_for_its_remains_once_every_answer_is_there() -> None:
    done = but(RESERVED, status=OrderStatus.CONFIRMED)
    assert done.remains == Remains(3, done.digest)
    assert but(done, awaited=("hat",)).remains is None
    assert RESERVED.remains is None
    assert PARKED.remains is None


def test_the_codes_of_remains_are_in_every_log_and_never_change() -> None:
    assert [str(status) for status in OrderStatus] == [
        "pending",
        "reserved",
        "needs_attention",
        "confirmed",
        "rejected",
        "cancelled",
    ]


def test_money_taken_once_more_for_an_order_that_is_just_confirmed_goes_back() -> None:
    confirmed = ORDER.react({"o-1": RESERVED}, PaymentTaken("o-1", "ch-1"), NOW).states
    (told_again,) = ORDER.react(confirmed, PaymentTaken("o-1", "ch-1"), NOW).facts
    (given_back,) = ORDER.react(confirmed, PaymentTaken("o-1", "ch-2"), NOW).facts
    assert told_again == OrderConfirmed("o-1")
    assert given_back == OrderCancelled("o-1", [], "charged twice")
