"""The book of traces: which trace each order has in the log, and the spans that the log knows of (I10)."""

from collections.abc import Sequence
from dataclasses import dataclass

from messages.record import Change, Envelope, Letter
from runtime.audit.report import Finding
from runtime.log import Entry

TRACE, SPAN = slice(3, 35), slice(36, 52)  # Of a traceparent.
_SAMPLED = frozenset("13579bdf")


@dataclass(frozen=True, slots=True)
class Sent:
    """A fact on its way: the span that sent it."""

    kind: str
    trace_id: str
    span_id: str


class Trails:
    """Takes every journal's states and facts. What is sampled is kept only where `keeps_spans`."""

    def __init__(self, *, keeps_spans: bool) -> None:
        self.findings: list[Finding] = []
        self.traces: dict[str, str] = {}
        """Each order's trace id."""
        self.sampled: set[str] = set()
        """Orders that somebody records."""
        self.sent: dict[str, Sent] = {}
        """Every sampled fact by its place in the log, as its spans name it."""
        self.span_ids: set[str] = set()
        self._keeps_spans = keeps_spans

    def take(
        self,
        entry: Entry,
        states: Sequence[Change],
        facts: Sequence[Envelope | Letter],
    ) -> None:
        for change in states:
            kind, _, name = change.key.rpartition(":")
            if kind != "sku" and change.traceparent:
                self._follow(name, change.traceparent, entry)
        for index, sent in enumerate(facts):
            if sent.traceparent and self._follow(sent.correlation_id, sent.traceparent, entry):
                kind = sent.type if isinstance(sent, Letter) else type(sent.fact).__name__
                trace_id, span_id = sent.traceparent[TRACE], sent.traceparent[SPAN]
                self.sent[f"{entry.seq}.{index}"] = Sent(kind, trace_id, span_id)

    def _follow(self, order_id: str, traceparent: str, entry: Entry) -> bool:
        """True where its spans are to be kept."""
        trace_id = traceparent[TRACE]
        known = self.traces.setdefault(order_id, trace_id)
        if known != trace_id:
            seen = f"its trace was {known}, and is {trace_id} from here on"
            self.findings.append(Finding("I10", order_id, seen, entry.seq))
            self.traces[order_id] = trace_id
        if not self._keeps_spans or traceparent[-1] not in _SAMPLED:
            return False
        self.sampled.add(order_id)
        self.span_ids.add(traceparent[SPAN])
        return True
