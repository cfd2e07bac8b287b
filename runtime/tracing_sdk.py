"""The OpenTelemetry SDK as we run it: which sampler, which exporter, how much may wait, what is lost when it is full.

Imported only when traces are on (see `runtime.tracing.start`).
"""

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
    sampling,
)
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from runtime.config_variables import Config, Sampler, TraceExporter

QUEUE_MAX = 4096  # Spans of some 300 orders; about 10 MB. What comes while it is full is dropped and counted.
BATCH_MAX = 512
BATCH_DELAY_MS = 1000
TEXT_CHARS_MAX = 8192  # Of one attribute, a stack trace being the longest.

_NOWHERE = Context()


@dataclass(frozen=True, slots=True)
class Sdk:
    tracer: trace.Tracer
    reports: trace.Tracer
    """For what supervisors report: every one is recorded, whatever the share of orders is."""
    ids: "DrawnIds"
    sampler: sampling.Sampler
    queue: "CountedQueue"

    @property
    def dropped(self) -> int:
        return self.queue.dropped + self.queue.exporter.failed

    def samples(self, trace_id: int, name: str) -> bool:
        """Whether a trace that starts here with this id is recorded."""
        decision = self.sampler.should_sample(_NOWHERE, trace_id, name).decision
        return decision is sampling.Decision.RECORD_AND_SAMPLE

    def close(self, timeout_s: float) -> None:
        # On a thread of its own: an exporter waiting for a collector that is away takes longer than we have.
        closing = threading.Thread(target=self.queue.shutdown, daemon=True, name="trace-flush")
        closing.start()
        closing.join(timeout_s)


class DrawnIds(RandomIdGenerator):
    """Gives the SDK the trace id on which sampling has been decided already."""

    next_trace_id = 0

    def generate_trace_id(self) -> int:
        drawn, self.next_trace_id = self.next_trace_id, 0
        return drawn or super().generate_trace_id()


class CountedQueue(SpanProcessor):
    """The SDK's batch processor, which is bounded, with a count of what it could not take.

    Ended spans are counted here by the one thread that ends them, and handed spans by the one that exports.
    """

    def __init__(self, exporter: SpanExporter, size_max: int = QUEUE_MAX) -> None:
        self.exporter = CountingExporter(exporter)
        self.dropped = 0
        self._size_max = size_max
        self._taken = 0
        self._batches = BatchSpanProcessor(
            self.exporter, size_max, BATCH_DELAY_MS, min(BATCH_MAX, size_max)
        )

    def on_end(self, span: ReadableSpan) -> None:
        if self._taken - self.exporter.handed >= self._size_max:
            self.dropped += 1
            return
        self._taken += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # The SDK's omission.


class CountingExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self.handed = 0
        self.failed = 0
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self.handed += len(spans)
            self.failed += 0 if result is SpanExportResult.SUCCESS else len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class FileSpanExporter(ConsoleSpanExporter):
    """Appends a line of JSON for each span."""

    def __init__(self, path: Path) -> None:
        super().__init__(out=path.open("a", encoding="utf-8"), formatter=_json_line)

    def shutdown(self) -> None:
        self.out.close()


def start_sdk(config: Config, exporter: SpanExporter) -> Sdk:
    queue = CountedQueue(exporter)
    ids = DrawnIds()
    sampler = _sampler(config)
    orders = _provider(config, sampler, ids, queue)
    reports = _provider(config, sampling.ALWAYS_ON, RandomIdGenerator(), queue)
    release = version("orders")
    return Sdk(
        tracer=orders.get_tracer("orders", release),
        reports=reports.get_tracer("orders.supervision", release),
        ids=ids,
        sampler=sampler,
        queue=queue,
    )


def open_exporter(config: Config, kind: TraceExporter, console: IO[str] | None) -> SpanExporter:
    if kind is TraceExporter.CONSOLE:
        if config.trace_file:
            return FileSpanExporter(config.trace_file)
        return ConsoleSpanExporter(out=console or sys.stdout, formatter=_json_line)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    endpoint = config.otel_traces_endpoint
    if endpoint is None and config.otel_endpoint is not None:
        endpoint = f"{config.otel_endpoint}/v1/traces"
    return OTLPSpanExporter(endpoint=endpoint)  # None: the standard's default, on this machine.


def _provider(
    config: Config, sampler: sampling.Sampler, ids: RandomIdGenerator, queue: CountedQueue
) -> TracerProvider:
    provider = TracerProvider(
        sampler=sampler,
        resource=_resource(config),
        shutdown_on_exit=False,  # The end of the process is ours to order, and bounded.
        id_generator=ids,
        span_limits=SpanLimits(max_attribute_length=TEXT_CHARS_MAX),
    )
    provider.add_span_processor(queue)
    return provider


def _resource(config: Config) -> Resource:
    ours = {
        "service.name": config.otel_service_name,
        "service.version": version("orders"),
        "service.instance.id": config.instance_id,
        "deployment.environment.name": config.app_env.value,
    }
    # OTEL_RESOURCE_ATTRIBUTES may add to these, and knows better.
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def _sampler(config: Config) -> sampling.Sampler:
    match config.otel_sampler:
        case Sampler.ALWAYS_ON:
            return sampling.ALWAYS_ON
        case Sampler.ALWAYS_OFF:
            return sampling.ALWAYS_OFF
        case Sampler.TRACEIDRATIO:
            return sampling.TraceIdRatioBased(config.otel_sampler_arg)
        case Sampler.PARENTBASED_ALWAYS_ON:
            return sampling.DEFAULT_ON
        case Sampler.PARENTBASED_ALWAYS_OFF:
            return sampling.DEFAULT_OFF
        case Sampler.PARENTBASED_TRACEIDRATIO:
            return sampling.ParentBasedTraceIdRatio(config.otel_sampler_arg)


def _json_line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
