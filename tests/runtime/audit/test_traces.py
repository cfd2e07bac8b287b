"""Traces: I10, with spans as the exporter writes them, made up from what the log says was sent and heard."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from messages.record import Envelope, RawRecord, Record
from runtime.audit import Mark, Span, Verdict, read_spans
from runtime.audit.lines import LinesError
from runtime.audit.spans import SpanContext

KILLED = Mark(0, "F1", "kill -9", 1)


def _id(number: int) -> str:
    return f"{number:016x}"


class Traced:
    """A run whose every order is sampled, and the spans of it: an entry, and a send and a process for each fact."""

    def __init__(self, evidence: Any) -> None:
        self.evidence = evidence
        evidence.forget_snapshots()
        evidence.views = None
        self.spans: list[Span] = []
        self._numbers = iter(range(1, 10_000))
        self._entries: dict[str, str] = {}
        evidence.rewrite("order", self._trace)
        evidence.rewrite("inventory", self._trace)
        evidence.rewrite("payment", self._trace)
        for entry in evidence.entries:
            if ".journal." in entry.subject:
                self._hear(entry.seq, RawRecord(entry.payload))

    def audit(self, **given: Any) -> Any:
        return self.evidence.audit(spans=self.spans, **given)

    def drop(self, *wanted: str) -> None:
        self.spans = [span for span in self.spans if span.name not in wanted]

    def _trace(self, record: Record) -> Record:
        facts = [self._send(sent) for sent in record.facts]
        return replace(record, facts=facts, states=[self._untraced(one) for one in record.states])

    def _untraced(self, change: Any) -> Any:
        return msgspec.structs.replace(change, traceparent="")

    def _send(self, sent: Envelope) -> Envelope:
        """A hop of its own under the order's entry, and what it sends."""
        order_id = sent.correlation_id
        if order_id not in self._entries:
            self._entries[order_id] = self._span("place order", order_id, "", "SERVER")
        hop = self._span("process something", order_id, self._entries[order_id], "CONSUMER")
        kind = type(sent.fact).__name__
        send = self._span(f"send {kind}", order_id, hop, "PRODUCER")
        return msgspec.structs.replace(sent, traceparent=f"00-{_trace_of(order_id)}-{send}-01")

    def _hear(self, seq: int, record: RawRecord) -> None:
        for index, sent in enumerate(record.facts):
            assert isinstance(sent, Envelope)
            place = {"messaging.message.id": f"{seq}.{index}", "order.id": sent.correlation_id}
            name = f"process {type(sent.fact).__name__}"
            self._span(name, sent.correlation_id, sent.traceparent.split("-")[2], "CONSUMER", place)

    def _span(
        self,
        name: str,
        order_id: str,
        parent: str,
        kind: str,
        attributes: dict[str, Any] | None = None,
    ) -> str:
        span_id = _id(next(self._numbers))
        context = SpanContext(f"0x{_trace_of(order_id)}", f"0x{span_id}")
        above = f"0x{parent}" if parent else None
        self.spans.append(Span(name, context, f"SpanKind.{kind}", above, attributes or {}))
        return span_id


def _trace_of(order_id: str) -> str:
    return order_id.encode().hex().ljust(32, "0")


@pytest.fixture
def traced(evidence: Any) -> Traced:
    return Traced(evidence)


def test_connected_traces_with_both_ends_of_every_hop_pass(traced: Traced) -> None:
    result = traced.audit()["I10"]
    assert (result.verdict, result.findings) == (Verdict.PASSED, ())
    assert "0 spans lost in export" in result.notes
    assert result.notes[0].startswith("6 orders sampled")


def test_an_order_that_changes_its_trace_is_seen_in_the_log_alone(evidence: Any) -> None:
    evidence.forget_snapshots()

    def elsewhere(sent: Envelope) -> Envelope:
        is_it = (type(sent.fact).__name__, sent.correlation_id) == ("PaymentTaken", "plain")
        other = f"00-{'ab' * 16}-{'cd' * 8}-00"
        return msgspec.structs.replace(sent, traceparent=other) if is_it else sent

    evidence.rewrite_facts("payment", elsewhere)
    report = evidence.audit()
    assert report.failed == ("I10",)
    assert {one.subject for one in report.findings} == {"plain"}


def test_without_spans_traces_are_not_checked(evidence: Any) -> None:
    result = evidence.audit()["I10"]
    assert (result.verdict, result.needs) == (
        Verdict.NOT_CHECKED,
        "the trace file (--traces FILE)",
    )


@pytest.mark.parametrize(
    ("lost", "count"),
    [
        (["send PaymentTaken"], 3),
        (["process PaymentTaken"], 3),
        (["send PaymentTaken", "process PaymentTaken"], 6),
        (["process something"], 28),
    ],
)
def test_spans_that_a_killed_process_took_with_it_are_counted(
    traced: Traced, lost: list[str], count: int
) -> None:
    traced.drop(*lost)
    result = traced.audit(marks=[KILLED])["I10"]
    assert result.verdict is Verdict.PASSED
    assert result.notes[-1] == f"{count} spans lost in export"
    assert traced.audit()["I10"].verdict is Verdict.UNKNOWN, "nothing explains it"


def _edited(traced: Traced, name: str, **values: Any) -> Sequence[Span]:
    edited = [
        msgspec.structs.replace(span, **values) if span.name == name else span
        for span in traced.spans
    ]
    assert edited != traced.spans
    return edited


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (
            lambda traced: _edited(traced, "process PaymentTaken", parent_id="0x" + "ee" * 8),
            "is nowhere, not even in the log",
        ),
        (
            lambda traced: _edited(traced, "process PaymentTaken", parent_id=None),
            "its trace has several beginnings",
        ),
        (
            lambda traced: _edited(
                traced, "process PaymentTaken", context=SpanContext("0x" + "ee" * 16, "0x1")
            ),
            "was heard outside the trace that it was sent in",
        ),
    ],
)
def test_a_span_that_does_not_hang_together_is_a_fault_whatever_was_killed(
    traced: Traced, change: Callable[[Traced], list[Span]], seen: str
) -> None:
    traced.spans = change(traced)
    result = traced.audit(marks=[KILLED])["I10"]
    assert result.verdict is Verdict.FAILED
    assert any(seen in one.seen for one in result.findings)


def test_a_second_hearing_is_an_attempt_of_its_own(traced: Traced) -> None:
    heard = next(span for span in traced.spans if span.name == "process PaymentTaken")
    again = SpanContext(heard.context.trace_id, "0x" + "ff" * 8)
    traced.spans.append(msgspec.structs.replace(heard, context=again))
    result = traced.audit()["I10"]
    assert result.verdict is Verdict.PASSED
    assert result.notes[0].endswith("1 heard again")


def test_a_span_is_read_as_the_console_exporter_writes_it(tmp_path: Path) -> None:
    written = {
        "name": "process PaymentTaken",
        "context": {"trace_id": "0xab", "span_id": "0xcd", "trace_state": "[]"},
        "kind": "SpanKind.CONSUMER",
        "parent_id": None,
        "start_time": "2026-01-01T00:00:00Z",
        "attributes": {"shard": 1, "messaging.message.id": "3.1"},
        "links": [{"context": {"trace_id": "0x1", "span_id": "0x2"}, "attributes": {}}],
    }
    file = tmp_path / "spans.jsonl"
    file.write_text(json.dumps(written) + "\n")
    [span] = read_spans(file)
    assert (span.trace_id, span.span_id, span.parent) == ("ab", "cd", "")
    assert (span.says("shard"), span.says("messaging.message.id")) == ("1", "3.1")


def test_a_span_cut_short_by_a_kill_is_lost_and_a_file_without_any_told(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    whole = '{"name": "a", "context": {"trace_id": "0x1", "span_id": "0x2"}}\n'
    file.write_text('{"name": "torn' + whole + whole)
    assert len(list(read_spans(file))) == 1
    file.write_text("no spans\n")
    with pytest.raises(LinesError, match="line 1 is no Span"):
        list(read_spans(file))
