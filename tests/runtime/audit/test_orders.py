"""Orders: I1 none lost, I5 every life legal and every journal owned by one after another, I11 decided in time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from actors.order_state import CODES, Event, OrderState, OrderStatus
from messages.generated.orders.v1 import PaymentUnknown
from messages.record import Cursor, Envelope, Letter, Record, encode_record
from runtime.audit import Attempt, Mark, Op, Told, Verdict
from runtime.audit.automaton import MOVES, STATUS, Stand, follow
from runtime.log import Entry
from runtime.memory import EPOCH_MS
from runtime.recall import Address


def test_what_the_actors_did_passes(evidence: Any) -> None:
    report = evidence.audit(journal=evidence.journal(), complete=True)
    assert report.findings == ()
    assert report.verdict is Verdict.PASSED
    unchecked = {one.invariant for one in report if one.verdict is Verdict.NOT_CHECKED}
    assert unchecked == {"I10", "I13"}
    assert report.figures["orders"] == report.figures["accepted"] == 6
    assert report["I6"].notes == ("5 snapshots compared", "6 views compared")


# --- I1 ---


@pytest.mark.parametrize(
    ("lost", "where"), [("plain", "prefix"), ("slow", "middle"), ("stranger", "postfix")]
)
def test_an_order_that_was_accepted_and_is_not_there_is_lost(
    evidence: Any, lost: str, where: str
) -> None:
    journal = evidence.journal()
    evidence.forget_snapshots()
    evidence.drop_states("order", lost)
    found = evidence.audit(journal=journal)["I1"].findings
    assert (lost, f"accepted, and not in the log (worker 0, {where})") in {
        (one.subject, one.seen) for one in found
    }
    assert evidence.audit(journal=journal).figures["lost"] == 1


def test_an_order_that_is_still_open_at_rest_is_lost_and_one_under_way_is_not(
    evidence: Any,
) -> None:
    _reopen(evidence)
    report = evidence.audit(views=None)
    assert report.failed == ("I1",)
    assert [one.subject for one in report["I1"].findings] == ["declined"]
    report = evidence.audit(views=None, quiescent=False)
    assert report.failed == ()
    assert report["I1"].notes == ("1 orders are on their way",)


def test_an_order_that_needs_attention_is_listed_apart_and_explained_by_an_outage(
    evidence: Any,
) -> None:
    _reopen(evidence, OrderStatus.NEEDS_ATTENTION, "PaymentUnknown")
    evidence.rewrite_facts("payment", _as_unknown)
    evidence.drop_facts("order", "OrderRejected", "declined")
    assert evidence.audit(views=None).failed == ("I1",)
    report = evidence.audit(views=None, outage_known=True)
    assert report.failed == ()
    assert report["I1"].notes == ("1 orders are needs_attention",)


def test_what_came_by_the_open_way_must_not_be_left_lying(evidence: Any) -> None:
    evidence.entries.append(
        Entry(len(evidence.entries) + 1, "ORDER.created.unseen", b"", EPOCH_MS + 90_000)
    )
    report = evidence.audit()
    assert report.failed == ("I1",)
    assert report.findings[0].subject == "unseen"
    assert evidence.audit(quiescent=False).failed == ()


def _reopen(evidence: Any, status: OrderStatus = OrderStatus.RESERVED, event: str = "") -> None:
    """Let the declined order never hear of it."""
    evidence.forget_snapshots()

    def open_again(state: OrderState) -> OrderState:
        if state.order_id != "declined" or state.status is not OrderStatus.REJECTED:
            return state
        lines = state.history[:-1]
        if event:
            lines = (*lines, Event(state.history[-1].at_ms, event, status))
        return msgspec.structs.replace(state, status=status, history=lines, reason="")

    evidence.rewrite_states("order", open_again)


def _as_unknown(sent: Envelope) -> Envelope:
    if sent.correlation_id != "declined":
        return sent
    return msgspec.structs.replace(sent, fact=PaymentUnknown(order_id="declined", detail="?"))


# --- I5: lives ---


def _changed(**values: Any) -> Callable[[OrderState], OrderState]:
    """Makes something else of the newest states of one order."""

    def change(state: OrderState) -> OrderState:
        is_it = state.order_id == "plain" and state.status is OrderStatus.CONFIRMED
        return msgspec.structs.replace(state, **values) if is_it else state

    return change


LATER = Event(EPOCH_MS, "CancelAsked", OrderStatus.CANCELLED)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (_changed(total_minor=1), "total_minor changed from 300 to 1"),
        (_changed(customer_id="c2"), "customer_id changed from 'c1' to 'c2'"),
        (_changed(items=()), "items changed"),
        (_changed(history=()), "its history was rewritten"),
        (_changed(status=OrderStatus.RESERVED), "its status is reserved, its history ends with"),
    ],
)
def test_what_an_order_must_not_change_is_seen(
    evidence: Any, change: Callable[[OrderState], OrderState], seen: str
) -> None:
    evidence.forget_snapshots()
    evidence.rewrite_states("order", change)
    found = evidence.audit(views=None)["I5"].findings
    assert any(one.seen.startswith(seen) and one.subject == "plain" for one in found)


def test_nothing_may_follow_a_terminal_status(evidence: Any) -> None:
    evidence.forget_snapshots()

    def go_on(state: OrderState) -> OrderState:
        if state.order_id == "plain" and state.status is OrderStatus.CONFIRMED:
            return msgspec.structs.replace(
                state, status=LATER.status, history=(*state.history, LATER)
            )
        return state

    evidence.rewrite_states("order", go_on)
    report = evidence.audit(views=None)
    seen = {one.seen for one in report["I5"].findings}
    assert "confirmed -CancelAsked-> cancelled is no legal move" in seen
    assert "I1" in report.failed, "it ended twice"


def test_a_finished_order_does_not_come_back(evidence: Any) -> None:
    last = [e for e in evidence.entries if e.subject == Address("order", 0).journal]
    again = [e for e in evidence.entries if e.subject == Address("order", 1).journal]
    evidence.forget_snapshots()
    repeated = [replace(e, seq=len(evidence.entries) + 1) for e in (last[-1], again[-1])]
    evidence.entries += repeated
    seen = [one.seen for one in evidence.audit()["I5"].findings]
    assert "it was finished, and has a new state since" in seen


LEGAL = [
    (start, event, end) for start, moves in MOVES.items() for event in moves for end in moves[event]
]


def _line(event: str, end: Stand) -> Event:
    return Event(0, event, STATUS[end])


@pytest.mark.parametrize(("start", "event", "end"), LEGAL)
def test_a_legal_move_leads_where_the_table_says(start: Stand, event: str, end: Stand) -> None:
    assert follow(start, [_line(event, end)]) == (end, "")


def test_every_other_move_is_illegal() -> None:
    legal = {(start, event, STATUS[end]) for start, event, end in LEGAL}
    events = {event for _, event, _ in LEGAL}
    for start in Stand:
        for event in events:
            for status in CODES:
                _, illegal = follow(start, [Event(0, event, status)])
                assert bool(illegal) is ((start, event, status) not in legal)


# --- I5: owners ---


def _on_turn(turn: int, change: Callable[[Record], Record]) -> Callable[[Record], Record]:
    return lambda record: change(record) if record.turn == turn else record


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda record: replace(record, owner="zombie/1"), "a fenced owner's record"),
        (lambda record: replace(record, turn=9), "turn 9 of"),
        (lambda record: replace(record, cursor=Cursor(10_000)), "which is not before itself"),
        (lambda record: replace(record, cursor=Cursor(0)), "and now up to 0"),
    ],
)
def test_a_journal_has_one_owner_after_another_who_reads_on(
    evidence: Any, change: Callable[[Record], Record], seen: str
) -> None:
    evidence.rewrite("payment", _on_turn(3, change))
    report = evidence.audit()
    assert report.failed == ("I5",)
    assert any(seen in one.seen for one in report.findings)


def test_a_new_owner_begins_with_an_empty_record_of_turn_0(evidence: Any) -> None:
    evidence.rewrite("payment", _on_turn(2, lambda record: replace(record, turn=0)))
    seen = {one.seen for one in evidence.audit()["I5"].findings}
    assert "a take-over changed something" in seen


def test_a_key_in_the_wrong_shard_is_seen(evidence: Any) -> None:
    evidence.counts = {**evidence.counts, "payment": 3}
    found = evidence.audit()["I5"].findings
    assert found
    assert all("belongs to shard" in one.seen for one in found)


def test_a_damaged_record_is_seen(evidence: Any) -> None:
    at = max(n for n, e in enumerate(evidence.entries) if ".journal.payment." in e.subject)
    damaged = evidence.entries[at].payload[:-1] + b"\x00"
    evidence.entries[at] = replace(evidence.entries[at], payload=damaged)
    found = evidence.audit()["I5"].findings
    assert any("checksum" in one.seen for one in found)


def test_an_unreadable_record_that_was_set_aside_is_told_and_no_fault(evidence: Any) -> None:
    seq = len(evidence.entries) + 1
    for subject in ("ORDER.journal.order.0", "ORDER.journal.of.strangers"):
        evidence.entries.append(Entry(len(evidence.entries) + 1, subject, b"?", EPOCH_MS))
    assert [one.seq for one in evidence.audit()["I5"].findings] == [seq, seq + 1]
    letters = [Letter(at, 0, "Record", b"?", "it is none") for at in (seq, seq + 1)]
    burial = encode_record(Record("next/1", 0, Cursor(), letters=letters))
    journal = Address("order", 0).journal
    evidence.entries.append(Entry(seq + 2, journal, burial, evidence.entries[0].time_ms))
    report = evidence.audit()
    assert report.failed == ()
    assert "2 unreadable records were set aside as letters" in report["I5"].notes


def test_a_log_whose_beginning_has_expired_is_judged_by_what_is_left(evidence: Any) -> None:
    entries = evidence.entries
    for first in range(1, len(entries)):
        evidence.entries = entries[first:]
        report = evidence.audit()
        assert report.findings == (), first
    assert any("has expired" in note for note in report["I5"].notes)


def test_a_history_dated_ahead_of_the_log_went_by_another_clock(evidence: Any) -> None:
    def an_hour_ahead(state: OrderState) -> OrderState:
        later = tuple(
            msgspec.structs.replace(one, at_ms=one.at_ms + 3_600_000) for one in state.history
        )
        return msgspec.structs.replace(state, history=later)

    evidence.forget_snapshots()
    evidence.rewrite_states("order", an_hour_ahead)
    report = evidence.audit(views=None)
    assert report.failed == ("I5",)
    assert report["I5"].findings[0].seen == "OrderCreated is dated 3600 s later than it was stored"
    assert evidence.audit(views=None, clock_steady=False).failed == ()


def test_a_deadline_does_not_pass_before_its_time(evidence: Any) -> None:
    def expire(state: OrderState) -> OrderState:
        if state.order_id != "regretted":
            return state
        lines = tuple(
            msgspec.structs.replace(one, event="DeadlinePassed")
            if one.event == "CancelAsked"
            else one
            for one in state.history
        )
        return msgspec.structs.replace(state, history=lines)

    evidence.forget_snapshots()
    evidence.rewrite_states("order", expire)
    seen = {one.seen for one in evidence.audit(views=None)["I5"].findings}
    assert any("its deadline passed" in one and "before its time" in one for one in seen), seen


# --- I11 ---


def test_an_order_that_took_too_long_is_late_and_a_fault_gives_it_time(evidence: Any) -> None:
    report = evidence.audit(terminal_within_s=1.0)
    assert report.failed == ("I11",)
    assert {one.subject for one in report.findings} == {"slow", "regretted"}
    healed = Mark(EPOCH_MS, "F20", "provider slow", EPOCH_MS + 2_900)
    assert evidence.audit(terminal_within_s=1.0, marks=[healed]).failed == ()


def test_while_running_only_an_order_past_its_deadline_is_late(evidence: Any) -> None:
    _reopen(evidence)
    late = evidence.entries[-1].time_ms + 3_600_000
    evidence.entries[-1] = replace(evidence.entries[-1], time_ms=late)
    report = evidence.audit(views=None, quiescent=False)
    assert report.failed == ("I11",)
    assert [one.subject for one in report.findings] == ["declined"]


def test_the_last_requests_must_be_answered(evidence: Any) -> None:
    def attempts(outcome: Told) -> Sequence[Attempt]:
        at_ms = EPOCH_MS + 80_000
        return [Attempt(Op.READ, at_ms + n, outcome, order_id="plain") for n in range(5)]

    journal = [*evidence.journal(), *attempts(Told.REFUSED)]
    assert evidence.audit(journal=journal)["I11"].verdict is Verdict.PASSED
    journal[-1] = msgspec.structs.replace(journal[-1], outcome=Told.UNKNOWN)
    assert evidence.audit(journal=journal)["I11"].verdict is Verdict.FAILED
