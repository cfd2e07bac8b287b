"""What adds up: I2 charges, I3 the books, I4 stock, I9 causes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from actors.inventory import Reservation, Stock
from messages.codec import encode
from messages.generated.orders.v1 import OrderOpened
from messages.record import Cursor, Envelope, Record, encode_record
from runtime.audit import Verdict
from runtime.audit.causes import RULES
from runtime.log import Entry
from runtime.simulator_ledger import Line

Find = Callable[[Line], bool]


def _capture_of(order_id: str) -> Find:
    return lambda line: line.kind == "capture" and line.reference == order_id


def _find(evidence: Any, wanted: Find) -> Line:
    found: Line = next(line for line in evidence.ledger if wanted(line))
    return found


# --- I2, I3 ---


def test_a_second_charge_is_seen_even_when_it_was_given_back(evidence: Any) -> None:
    first = _find(evidence, _capture_of("plain"))
    second = msgspec.structs.replace(first, id="ch2", charge_id="ch2", key="other")
    back = msgspec.structs.replace(second, id="rf2", kind="refund", key="another")
    evidence.ledger += [second, back]
    report = evidence.audit(quiescent=False)
    assert report.failed == ("I2",)
    assert [one.seen for one in report.findings] == ["it was charged 2 times"]
    assert report.figures["double_charged"] == 1


def test_a_charge_of_another_amount_or_currency_is_seen(evidence: Any) -> None:
    line = _find(evidence, _capture_of("plain"))
    at = evidence.ledger.index(line)
    for wrong in ({"amount_minor": 299}, {"currency": "EUR"}):
        evidence.ledger[at] = msgspec.structs.replace(line, **wrong)
        assert evidence.audit().failed == ("I2", "I3")


def test_a_refund_that_was_never_made_leaves_the_books_wrong(evidence: Any) -> None:
    evidence.ledger = [line for line in evidence.ledger if line.kind != "refund"]
    report = evidence.audit()
    assert report.failed == ("I3", "I9")
    assert report["I3"].findings[0].seen == "700 kept, 600 due"
    assert report["I3"].findings[1].subject == "regretted"
    assert report["I9"].findings[0].seen.startswith("it heard of refund")


def test_without_a_ledger_money_is_not_checked(evidence: Any) -> None:
    report = evidence.audit(ledger=None)
    assert report["I2"].verdict is report["I3"].verdict is Verdict.NOT_CHECKED
    assert report["I2"].needs
    assert report.verdict is Verdict.PASSED


# --- I4 ---


def _on_stock(sku: str, **more: int) -> Callable[[Any], Any]:
    """Adds to the newest levels of a SKU, in every record that has it."""

    def change(state: Stock | Reservation) -> Stock | Reservation:
        if not isinstance(state, Stock) or state.sku != sku:
            return state
        levels = {name: getattr(state, name) + by for name, by in more.items()}
        return msgspec.structs.replace(state, **levels)

    return change


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (_on_stock("a", initial=1), "initial is not available"),
        (_on_stock("a", on_hand=-200, initial=-200), "something is negative"),
        (_on_stock("a", reserved=1), "are reserved, but the reservations hold"),
        (_on_stock("a", sold=1, on_hand=-1), "sold, confirmed orders hold"),
    ],
)
def test_stock_that_does_not_add_up_is_seen(
    evidence: Any, change: Callable[[Any], Any], seen: str
) -> None:
    evidence.forget_snapshots()
    evidence.rewrite_states("inventory", change)
    report = evidence.audit()
    assert report.failed == ("I4",)
    assert any(seen in one.seen for one in report.findings)


def test_a_reservation_that_nobody_gave_up_is_seen_at_rest_alone(evidence: Any) -> None:
    evidence.forget_snapshots()
    _forget_the_end_of_reservations(evidence)
    report = evidence.audit()
    assert report.failed == ("I4",)
    assert any("still reserved" in one.seen for one in report.findings)
    assert evidence.audit(quiescent=False).findings == ()


def _forget_the_end_of_reservations(evidence: Any) -> None:
    """Let inventory not have heard of any end yet."""

    def without(record: Record) -> Record:
        ends = any(one.state is None for one in record.states)
        return replace(record, states=()) if ends else record

    evidence.rewrite("inventory", without)


# --- I9 ---


def test_every_fact_that_an_actor_says_has_a_rule() -> None:
    from actors import ACTORS, Place, Terms

    heard = {kind.__name__ for make in ACTORS.values() for kind in make(Terms(), Place(0, 1)).hears}
    said = {kind for rules in RULES.values() for kind in rules}
    asked = {"OrderCreated", "CancelAsked", "RetryAsked", "StockCounted"}
    assert said | asked == heard


def _recaused(kind: str, **values: Any) -> Callable[[Envelope], Envelope]:
    def change(sent: Envelope) -> Envelope:
        is_it = type(sent.fact).__name__ == kind and sent.correlation_id == "plain"
        return msgspec.structs.replace(sent, **values) if is_it else sent

    return change


@pytest.mark.parametrize(
    ("actor", "change", "seen"),
    [
        ("order", _recaused("OrderReserved", cause_seq=0), "was said without a cause"),
        ("order", _recaused("OrderReserved", cause_seq=9_999), "which stands later"),
        ("order", _recaused("OrderReserved", cause_index=99), "which is not in the log"),
        ("order", _recaused("OrderReserved", cause_seq=1), "which is not in the log"),
        ("order", _recaused("OrderReserved", fact=OrderOpened(order_id="plain")), "nobody answers"),
        ("payment", _recaused("PaymentTaken", fact=OrderOpened()), "nothing that this actor says"),
    ],
)
def test_a_fact_without_a_cause_that_explains_it_is_seen(
    evidence: Any, actor: str, change: Callable[[Envelope], Envelope], seen: str
) -> None:
    evidence.rewrite_facts(actor, change)
    report = evidence.audit()
    assert report.failed == ("I9",)
    assert any(seen in one.seen for one in report.findings)


def test_a_fact_caused_by_one_about_another_order_is_seen(evidence: Any) -> None:
    evidence.rewrite_facts("order", _recaused("OrderReserved", correlation_id="slow"))
    seen = {one.seen.partition(", ")[2] for one in evidence.audit()["I9"].findings}
    assert "which is about order plain" in seen


def test_an_order_that_nobody_placed_is_seen_where_the_journal_is_complete(evidence: Any) -> None:
    journal = [one for one in evidence.journal() if one.order_id not in ("plain", "regretted")]
    assert evidence.audit(journal=journal).failed == ()
    report = evidence.audit(journal=journal, complete=True)
    assert report.failed == ("I9",)
    assert {(one.subject, one.seen) for one in report.findings} == {
        ("plain", "nobody placed it"),
        ("regretted", "nobody placed it"),
        ("regretted", "nobody asked for its cancel"),
    }


def test_a_charge_for_nobody_and_one_that_nobody_heard_of_are_seen(evidence: Any) -> None:
    line = _find(evidence, _capture_of("plain"))
    stray = msgspec.structs.replace(line, id="ch9", charge_id="ch9", key="k9", reference="ghost")
    evidence.ledger.append(stray)
    report = evidence.audit()
    assert report.failed == ("I9",)
    assert report.findings[0].subject == "ghost"
    evidence.ledger[-1] = msgspec.structs.replace(stray, reference="declined")
    assert any("it never heard of it" in one.seen for one in evidence.audit()["I9"].findings)
    assert "I9" not in evidence.audit(quiescent=False).failed


def test_a_payment_taken_without_a_charge_is_seen(evidence: Any) -> None:
    evidence.ledger.remove(_find(evidence, _capture_of("plain")))
    report = evidence.audit()
    assert report.failed == ("I3", "I9")
    assert "which was never made" in report["I9"].findings[0].seen


def test_a_line_of_history_that_nobody_said_is_seen(evidence: Any) -> None:
    evidence.drop_facts("payment", "PaymentRefused", "declined")
    seen = {one.seen for one in evidence.audit()["I9"].findings}
    assert "it heard PaymentRefused, which nobody said" in seen


def test_what_a_letter_brought_back_may_cause_anything(evidence: Any) -> None:
    seq = len(evidence.entries) + 1
    evidence.entries.append(Entry(seq, "ORDER.again.order.0", b"?", 0))
    owner = next(
        e for e in reversed(evidence.entries) if e.subject.startswith("ORDER.journal.order.0")
    )
    fact = OrderOpened(order_id="plain")
    assert encode(fact)
    record = Record("next/1", 0, Cursor())
    said = Record("next/1", 1, Cursor(seq), facts=[Envelope(fact, "plain", seq, 0)])
    for number, one in enumerate((record, said), seq + 1):
        evidence.entries.append(Entry(number, owner.subject, encode_record(one), owner.time_ms))
    assert evidence.audit().failed == ()
