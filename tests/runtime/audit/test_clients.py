"""Clients: I7 reads, I8 answers; and I6, what they are shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.order_state import OrderStatus
from messages.record import decode_snapshot, encode_snapshot
from runtime.audit import Attempt, History, Op, Told, Verdict, read_journal
from runtime.audit.journal import encode_attempts
from runtime.audit.lines import LinesError
from runtime.memory import EPOCH_MS

Placed = Callable[..., Attempt]


def _read(at_ms: int, version: int, status: str, **more: Any) -> Attempt:
    said = {
        "outcome": Told.ACCEPTED,
        "order_id": "plain",
        "code": 200,
        "version": version,
        "status": status,
        "took_ms": 1.0,
    }
    return Attempt(Op.READ, EPOCH_MS + at_ms, **{**said, **more})


# --- I6 ---


def test_a_view_that_is_not_what_the_log_gives_is_seen(evidence: Any) -> None:
    view = evidence.views["plain"]
    evidence.views["plain"] = view.replace(b'"confirmed"', b'"cancelled"')
    report = evidence.audit()
    assert report.failed == ("I6",)
    assert "status 'cancelled' instead of 'confirmed'" in report.findings[0].seen
    evidence.views["plain"] = b" " + view
    assert evidence.audit().findings[0].seen == "the same values in other bytes"
    del evidence.views["plain"]
    assert evidence.audit().findings[0].seen == "it has no view"
    assert evidence.audit(quiescent=False).failed == (), "it may be yet to be written"


def test_a_view_of_nothing_is_seen(evidence: Any) -> None:
    evidence.views["ghost"] = evidence.views["plain"]
    assert [one.subject for one in evidence.audit().findings] == ["ghost"]


def test_while_running_a_view_may_be_an_older_version_but_no_other(evidence: Any) -> None:
    view = msgspec.json.decode(evidence.views["plain"])
    older = {**view, "history": view["history"][:1], "version": 1, "status": "pending"}
    evidence.views["plain"] = msgspec.json.encode(older)
    assert evidence.audit(quiescent=False).failed == ()
    older["history"][0]["event"] = "Invented"
    evidence.views["plain"] = msgspec.json.encode(older)
    assert evidence.audit(quiescent=False).failed == ("I6",)


def test_a_snapshot_that_is_not_what_the_journal_says_is_seen(evidence: Any) -> None:
    def tamper(name: str, **values: Any) -> None:
        snapshot = decode_snapshot(evidence.snapshots[name])
        evidence.snapshots[name] = encode_snapshot(
            type(snapshot)(**{**{n: getattr(snapshot, n) for n in snapshot.__slots__}, **values})
        )

    kept = dict(evidence.snapshots)
    tamper("inventory-1", states=())
    assert any("is missing" in one.seen for one in evidence.audit()["I6"].findings)
    evidence.snapshots = dict(kept)
    stocks = [
        msgspec.structs.replace(one, traceparent="00-other")
        for one in decode_snapshot(kept["inventory-1"]).states
    ]
    tamper("inventory-1", states=stocks)
    assert any("differs from what the journal" in f.seen for f in evidence.audit()["I6"].findings)
    evidence.snapshots = dict(kept)
    tamper("order-0", segments=())
    assert any("is not archived as it ended" in f.seen for f in evidence.audit()["I6"].findings)
    evidence.snapshots = {name: data for name, data in kept.items() if "/" not in name}
    assert any("of the archive is gone" in one.seen for one in evidence.audit()["I6"].findings)
    evidence.snapshots = {**kept, "order-0": b"nonsense"}
    assert any("cannot be read" in one.seen for one in evidence.audit()["I6"].findings)
    assert evidence.audit().failed == ("I6",)


def test_only_who_was_stopped_in_order_leaves_current_snapshots(evidence: Any) -> None:
    def is_current() -> bool:
        history = History(evidence.counts, evidence.snapshots)
        history.add_all(evidence.entries)
        return history.saved.is_current

    assert is_current()
    del evidence.snapshots["payment-0"]
    assert not is_current()


def test_without_views_the_read_model_is_not_checked(evidence: Any) -> None:
    result = evidence.audit(views=None)["I6"]
    assert (result.verdict, result.needs) == (Verdict.NOT_CHECKED, "the view store")


# --- I7 ---


@pytest.mark.parametrize(
    ("reads", "is_wrong"),
    [
        ([_read(100, 2, "reserved"), _read(200, 3, "confirmed")], False),
        ([_read(100, 3, "confirmed"), _read(200, 2, "reserved")], True),
        ([_read(100, 3, "confirmed"), _read(200, 2, "reserved", worker=1)], False),
        ([_read(100, 3, "confirmed", took_ms=300), _read(200, 2, "reserved")], False),
        ([_read(100, 2, "confirmed")], True),
        ([_read(100, 4, "confirmed")], True),
        ([_read(100, 0, "pending")], False),
        ([_read(100, 0, "", outcome=Told.REFUSED, code=404)], True),
        ([_read(-10, 0, "", outcome=Told.REFUSED, code=404)], False),
        ([_read(100, 0, "", outcome=Told.REFUSED, code=404, order_id="ghost")], False),
    ],
)
def test_reads_go_forward_show_what_was_and_find_what_was_accepted(
    evidence: Any, placed: Placed, reads: list[Attempt], is_wrong: bool
) -> None:
    report = evidence.audit(journal=[placed("plain", at_ms=EPOCH_MS), *reads])
    assert report.failed == (("I7",) if is_wrong else ())


# --- I8 ---


def test_one_key_is_one_order_and_one_order_one_key(evidence: Any, placed: Placed) -> None:
    first = placed("plain", at_ms=1, key="k")
    assert evidence.audit(journal=[first, first]).failed == ()
    assert evidence.audit(journal=[first, placed("slow", at_ms=2, key="k")]).failed == ("I8",)
    assert evidence.audit(journal=[first, placed("plain", at_ms=2, key="l")]).failed == ("I8",)
    other_tenant = placed("plain", at_ms=2, key="k", tenant="t")
    assert evidence.audit(journal=[first, other_tenant]).failed == ("I8",)
    theirs = placed("slow", at_ms=2, key="k", tenant="t")
    assert evidence.audit(journal=[first, theirs]).failed == ()


def test_clients_are_told_of_one_end(evidence: Any, placed: Placed) -> None:
    told = placed("plain", at_ms=1, status="confirmed")
    assert evidence.audit(journal=[told]).failed == ()
    otherwise = placed("plain", at_ms=2, status="rejected")
    assert evidence.audit(journal=[told, otherwise]).failed == ("I8",)
    assert evidence.audit(journal=[otherwise]).failed == ("I8",)


def test_an_accepted_cancel_ends_in_cancelled(evidence: Any) -> None:
    cancelled = Attempt(Op.CANCEL, EPOCH_MS, Told.ACCEPTED, order_id="plain", code=200)
    report = evidence.audit(journal=[cancelled])
    assert report.failed == ("I8",)
    assert OrderStatus.CONFIRMED in report.findings[0].seen
    refused = msgspec.structs.replace(cancelled, outcome=Told.REFUSED, code=409)
    assert evidence.audit(journal=[refused]).failed == ()


def test_an_order_holds_the_body_that_was_accepted(evidence: Any, placed: Placed) -> None:
    items = [("a", 2, 100), ("b", 1, 100)]
    body = {"items": items, "total_minor": 300, "currency": "GBP"}
    assert evidence.audit(journal=[placed("plain", at_ms=1, **body)]).failed == ()
    for wrong in ({"items": items[:1]}, {"total_minor": 299}, {"currency": "EUR"}):
        journal = [placed("plain", at_ms=1, **{**body, **wrong})]
        assert evidence.audit(journal=journal).failed == ("I8",)


# --- the journal as a file ---


def test_a_journal_comes_back_as_it_was_written(evidence: Any, tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(encode_attempts(evidence.journal()))
    assert list(read_journal(file)) == evidence.journal()


def test_a_line_that_its_writer_did_not_finish_is_left_out_and_any_other_told(
    evidence: Any, tmp_path: Path
) -> None:
    file = tmp_path / "journal.jsonl"
    whole = encode_attempts(evidence.journal())
    file.write_bytes(whole[:-10])
    assert len(list(read_journal(file))) == len(evidence.journal()) - 1
    file.write_bytes(b'{"op":"steal"}\n' + whole)
    with pytest.raises(LinesError, match="line 1 is no Attempt"):
        list(read_journal(file))
    with pytest.raises(LinesError, match="cannot be read: No such file"):
        list(read_journal(tmp_path / "none"))


def test_the_order_of_a_key_without_an_answer_is_known() -> None:
    attempt = Attempt(Op.PLACE, 0, Told.UNKNOWN, key="k")
    assert attempt.about.startswith("o")
    assert msgspec.structs.replace(attempt, tenant="t").about == ""
