"""Traces: one connected trace per order, a span for every hearing and every sending; nearly free where not sampled.

Contexts travel with the facts, as W3C `traceparent` and `tracestate` texts in their envelopes. Whether an order is
traced is decided once, when it comes in, and carried along. The edge opens the trace::

    with tracer.start_order("POST /orders", request_traceparent) as span:
        ...span.traceparent goes into the first envelope, span.trace_id into the answer...

and a shard host hears and sends::

    hop = tracer.hop(envelope.traceparent, envelope.tracestate, "OrderOpened", subject, "4711.0", order_id, "order", 3)
    for fact in facts_owed:
        sent = hop.send("OrderReserved", journal_subject)  # Its context goes into the new envelope.
    hop.end(seq, index)  # Once committed, ends the sends too; or hop.fail(error).

Names and attributes follow OpenTelemetry's messaging conventions.
"""

import random
import traceback
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.config_variables import Config, Sampler, TraceExporter
from runtime.logs import report_fields
from supervisors.reports import ErrorReport, Report

if TYPE_CHECKING:
    from runtime.tracing_sdk import Sdk

Attribute = str | int | float | bool
Attributes = Mapping[str, Attribute]

# What the propagator reads at most. Checked before it is asked, as it logs a line about whatever is longer.
TRACEPARENT_CHARS_MAX = TRACESTATE_CHARS_MAX = 512
SAMPLED = frozenset("13579bdf")  # Last digit of a traceparent whose lowest flag is set.
FLUSH_S = 3.0

_NOWHERE = Context()  # Unlike None, which means the current context.
_PROPAGATOR = TraceContextTextMapPropagator()


class Span:
    """A span that nobody records: it hands the context on under which it was asked for."""

    __slots__ = ("_attached", "traceparent", "tracestate")

    def __init__(self, traceparent: str, tracestate: str = "") -> None:
        self.traceparent = traceparent
        self.tracestate = tracestate
        self._attached: Token[Context] | None = None

    @property
    def trace_id(self) -> str:
        """32 hex digits, as trace viewers and logs show it."""
        return self.traceparent[3:35]

    def send(self, message: str, subject: str) -> "Span":  # noqa: ARG002 - for the spans that are recorded.
        """The span of one fact sent because of this one. It ends with this one."""
        return self

    def note(self, attributes: Attributes) -> None:
        """Add what became known later."""

    def end(self, seq: int = 0, index: int = 0) -> None:
        """It went well. The facts sent, if any, stand in the log at `seq`, the first of them at `index`."""

    def fail(self, error: BaseException) -> None:
        """End it with what went wrong."""

    def __enter__(self) -> Self:
        """Make it the current one, so that log lines carry its ids."""
        self._attached = contexts.attach(self._as_context())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._attached is not None:
            contexts.detach(self._attached)
        if isinstance(error, Exception):
            self.fail(error)
        else:
            self.end()  # Being cancelled is no failure of the order.

    def _as_context(self) -> Context:
        return trace.set_span_in_context(_Unparsed(self.traceparent, self.tracestate), _NOWHERE)


class _Unparsed(trace.NonRecordingSpan):
    """Stands for a span of which only the texts are known: few are ever looked at, and to parse them is dear."""

    def __init__(self, traceparent: str, tracestate: str) -> None:
        self._texts = traceparent, tracestate

    def get_span_context(self) -> SpanContext:
        return trace.get_current_span(_context_of(*self._texts) or _NOWHERE).get_span_context()


class RecordedSpan(Span):
    """A span on its way to the exporter, with the sends that belong to it."""

    __slots__ = ("_sdk", "_sends", "_span")

    def __init__(self, sdk: "Sdk", span: trace.Span) -> None:
        super().__init__(*_texts_of(span.get_span_context()))
        self._sdk = sdk
        self._span = span
        self._sends: list[trace.Span] = []

    def send(self, message: str, subject: str) -> Span:
        sent = self._sdk.tracer.start_span(
            f"send {message}",
            self._as_context(),
            SpanKind.PRODUCER,
            _messaging("send", message, subject),
        )
        self._sends.append(sent)
        return RecordedSpan(self._sdk, sent)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, seq: int = 0, index: int = 0) -> None:
        for position, sent in enumerate(self._sends, index):
            if seq:
                sent.set_attribute("messaging.message.id", f"{seq}.{position}")
            sent.end()
        self._span.end()

    def fail(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception_only(error)).strip()
        for span in (*self._sends, self._span):
            span.set_status(Status(StatusCode.ERROR, text))
        self._span.set_attribute("error.type", type(error).__qualname__)
        self._span.add_event(
            "exception",
            {
                "exception.type": type(error).__qualname__,
                "exception.message": text,
                "exception.stacktrace": "".join(traceback.format_exception(error)),
            },
        )
        self.end()

    def _as_context(self) -> Context:
        return trace.set_span_in_context(self._span, _NOWHERE)


class Tracer:
    """Opens spans. Without an SDK it opens none, and still gives every order a trace id of its own."""

    def __init__(self, sdk: "Sdk | None" = None, *, rng: random.Random | None = None) -> None:
        self._sdk = sdk
        self._rng = rng or random.Random()  # noqa: S311  # Ids that do not repeat, and no secrets.

    @property
    def dropped(self) -> int:
        """Spans lost so far: the queue was full, or the exporter failed."""
        return self._sdk.dropped if self._sdk else 0

    def start_order(
        self,
        name: str,
        traceparent: str | None = None,
        tracestate: str | None = None,
        attributes: Attributes | None = None,
        kind: SpanKind = SpanKind.SERVER,
    ) -> Span:
        """The first span of an order here. It continues the caller's trace, where there is a valid one."""
        parent = _context_of(traceparent or "", tracestate or "")
        if parent is not None:
            return self._child(name, parent, attributes, kind)
        trace_id = self._rng.getrandbits(128) or 1
        if self._sdk is None or not self._sdk.samples(trace_id, name):
            return Span(f"00-{trace_id:032x}-{self._rng.getrandbits(64) or 1:016x}-00")
        self._sdk.ids.next_trace_id = trace_id
        return RecordedSpan(
            self._sdk, self._sdk.tracer.start_span(name, _NOWHERE, kind, attributes)
        )

    def hop(
        self,
        traceparent: str,
        tracestate: str,
        message: str,
        subject: str,
        message_id: str,
        order_id: str,
        actor: str,
        shard: int,
    ) -> Span:
        """The span of one fact heard, under the context in its envelope."""
        parent = self._sampled(traceparent, tracestate)
        if parent is None:
            return Span(traceparent, tracestate)
        attributes: dict[str, Attribute] = {
            **_messaging("process", message, subject),
            "messaging.message.id": message_id,
            "messaging.message.conversation_id": order_id,
            "order.id": order_id,
            "actor": actor,
            "shard": shard,
        }
        return self._child(f"process {message}", parent, attributes, SpanKind.CONSUMER)

    def call(
        self,
        name: str,
        traceparent: str,
        tracestate: str = "",
        attributes: Attributes | None = None,
    ) -> Span:
        """The span of one call to the outside world, under the context of the fact that decided on it."""
        parent = self._sampled(traceparent, tracestate)
        if parent is None:
            return Span(traceparent, tracestate)
        return self._child(name, parent, attributes, SpanKind.CLIENT)

    def span_report(self, report: Report) -> None:
        """Show what a supervisor did, in a short trace of its own. Never sampled away: it is rare."""
        if self._sdk is None:
            return
        name, values = report_fields(report)
        attributes = {f"supervision.{key}": value for key, value in values.items()}
        span = self._sdk.reports.start_span(f"supervision {name}", _NOWHERE, attributes=attributes)
        if isinstance(report, ErrorReport):
            span.set_status(Status(StatusCode.ERROR, report.error_text))
        span.end()

    def span_fault(self, attributes: Attributes) -> None:
        """Show that an injected fault has happened, in a short trace of its own. Never sampled away."""
        if self._sdk is not None:
            said = {f"fault.{key}": value for key, value in attributes.items()}
            self._sdk.reports.start_span("fault fired", _NOWHERE, attributes=said).end()

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Export what has ended, for as long as that may take, and stop. Blocks: call it after trio has run."""
        if self._sdk is not None:
            self._sdk.close(timeout_s)

    def records(self, traceparent: str) -> bool:
        """Whether spans under this context are recorded. With most orders unsampled, this is all that a hop costs."""
        return self._sdk is not None and traceparent[-1:] in SAMPLED

    def _sampled(self, traceparent: str, tracestate: str) -> Context | None:
        return _context_of(traceparent, tracestate) if self.records(traceparent) else None

    def _child(
        self,
        name: str,
        parent: Context,
        attributes: Attributes | None,
        kind: SpanKind,
    ) -> Span:
        if self._sdk is None:
            return Span(*_texts_of(trace.get_current_span(parent).get_span_context()))
        span = self._sdk.tracer.start_span(name, parent, kind, attributes)
        if span.is_recording():
            return RecordedSpan(self._sdk, span)
        return Span(*_texts_of(span.get_span_context()))


def start(config: Config, console: IO[str] | None = None) -> Tracer:
    """The tracer that the configuration asks for. `console` is where the console exporter writes: standard output."""
    exporter = exporter_of(config)
    if exporter is TraceExporter.NONE or config.otel_sampler is Sampler.ALWAYS_OFF:
        return Tracer()
    from runtime.tracing_sdk import (
        open_exporter,
        start_sdk,
    )  # Here, as it takes a tenth of a second to import.

    return Tracer(start_sdk(config, open_exporter(config, exporter, console)))


def exporter_of(config: Config) -> TraceExporter:
    if config.otel_sdk_disabled:
        return TraceExporter.NONE
    if config.otel_traces_exporter is not None:
        return config.otel_traces_exporter
    if config.otel_endpoint or config.otel_traces_endpoint:
        return TraceExporter.OTLP
    return TraceExporter.CONSOLE if config.trace_file else TraceExporter.NONE


def _messaging(operation: str, message: str, subject: str) -> dict[str, Attribute]:
    return {
        "messaging.system": "nats",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": subject,
        "message.type": message,
    }


def _context_of(traceparent: str, tracestate: str) -> Context | None:
    """What the two texts say; None unless they say it as the W3C asks."""
    if not traceparent or len(traceparent) > TRACEPARENT_CHARS_MAX:
        return None
    carrier = {"traceparent": traceparent}
    if tracestate and len(tracestate) <= TRACESTATE_CHARS_MAX:
        carrier["tracestate"] = tracestate
    context = _PROPAGATOR.extract(carrier, _NOWHERE)
    return None if context is _NOWHERE else context


def _texts_of(context: SpanContext) -> tuple[str, str]:
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return traceparent, context.trace_state.to_header()
