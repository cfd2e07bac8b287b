"""Traces: each order is one connected graph, both ends of every hop in it; what the export lost is counted (I10).

Spans wait in memory until they are exported, so a killed process takes some with it. A span whose parent is missing is
counted as such a loss where the log knows the parent, and is a fault where nobody does.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from runtime.audit.check import judged, unchecked, undecided
from runtime.audit.evidence import Evidence
from runtime.audit.report import Finding, Result
from runtime.audit.spans import Span

# Their parents are the edge's spans or a caller's, of which the log knows nothing.
ENTRIES = frozenset(
    f"process {kind}" for kind in ("OrderCreated", "CancelAsked", "RetryAsked", "StockCounted")
)
CONSUMER, PRODUCER, SERVER = "SpanKind.CONSUMER", "SpanKind.PRODUCER", "SpanKind.SERVER"

_Trace = dict[str, Span]


def check_traces(evidence: Evidence) -> Result:
    """I10: an order keeps its trace throughout the log; exported, that is one connected graph, hop by hop.

    Spans that are missing though no process was killed leave it unknown.
    """
    rule = "each order is one connected trace, with both ends of every hop"
    trails = evidence.history.trails
    findings = list(trails.findings)
    notes: list[str] = []
    if evidence.spans is None:
        notes.append(f"in the log each of {len(trails.traces)} orders keeps its trace")
        needs = "the trace file (--traces FILE)"
        return (
            judged("I10", rule, 0, findings) if findings else unchecked("I10", rule, needs, notes)
        )
    traces = _by_trace(evidence)
    missing = _find_missing_ends(evidence, traces)
    for order_id in trails.sampled:
        spans = traces.get(trails.traces[order_id], {})
        found, parents = _look_at(evidence, order_id, spans)
        findings += found
        missing |= parents
    findings += list(_find_astray(evidence, evidence.spans))
    notes += list(_notes(evidence, len(missing)))
    if missing and not findings and not evidence.marks:
        notes.append("nothing is said to have been killed (--marks FILE), so nothing explains it")
        return undecided("I10", rule, notes, len(trails.sampled))
    return judged("I10", rule, len(trails.traces), findings, notes)


def _by_trace(evidence: Evidence) -> dict[str, _Trace]:
    traces: dict[str, _Trace] = defaultdict(dict)
    for span in evidence.spans or ():
        traces[span.trace_id][span.span_id] = span
    return traces


def _look_at(evidence: Evidence, order_id: str, spans: _Trace) -> tuple[list[Finding], set[str]]:
    """What is wrong with one trace, and the parents in it that were lost in export."""
    findings: list[Finding] = []
    lost: set[str] = set()
    roots = [span for span in spans.values() if not span.parent and not span.links]
    if len(roots) > 1:
        names = sorted(span.name for span in roots)
        findings.append(Finding("I10", order_id, f"its trace has several beginnings: {names}"))
    for span in spans.values():
        if not span.parent or span.parent in spans or span.kind == SERVER or span.name in ENTRIES:
            continue
        if span.parent in evidence.history.trails.span_ids or span.kind == PRODUCER:
            lost.add(span.parent)
        else:
            seen = f"the parent {span.parent} of {span.name} is nowhere, not even in the log"
            findings.append(Finding("I10", order_id, seen))
    return findings, lost


def _find_astray(evidence: Evidence, spans: Sequence[Span]) -> Iterator[Finding]:
    """Who heard a fact must have done so under the span that sent it, the second time, too."""
    sent_by_place = evidence.history.trails.sent
    for span in spans:
        if span.kind != CONSUMER:
            continue
        place = span.says("messaging.message.id")
        sent = sent_by_place.get(place)
        if sent and (sent.trace_id, sent.span_id) != (span.trace_id, span.parent):
            seen = f"{sent.kind} at {place} was heard outside the trace that it was sent in"
            yield Finding("I10", span.says("order.id"), seen)


def _find_missing_ends(evidence: Evidence, traces: dict[str, _Trace]) -> set[str]:
    """Ends of hops that are missing: the span that sent, or every span that heard."""
    missing: set[str] = set()
    heard = {span.parent for span in evidence.spans or () if span.kind == CONSUMER}
    for sent in evidence.history.trails.sent.values():
        if sent.span_id not in traces.get(sent.trace_id, {}):
            missing.add(sent.span_id)
        if evidence.is_quiescent and sent.span_id not in heard:
            missing.add(f"who heard {sent.span_id}")
    return missing


def _notes(evidence: Evidence, lost: int) -> Iterator[str]:
    trails = evidence.history.trails
    hearings = Counter(
        (span.says("messaging.message.id"), span.says("actor"), span.says("shard"))
        for span in evidence.spans or ()
        if span.kind == CONSUMER and span.says("messaging.message.id")
    )
    again = sum(times - 1 for times in hearings.values())
    yield f"{len(trails.sampled)} orders sampled, {len(trails.sent)} hops, {again} heard again"
    yield f"{lost} spans lost in export"
