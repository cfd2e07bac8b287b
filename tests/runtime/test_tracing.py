"""Traces: connected, decided once, bounded, and silent where nobody asked for them."""

import gzip
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from runtime.config import load
from runtime.config_variables import TraceExporter
from runtime.tracing import Span, Tracer, exporter_of, start
from runtime.tracing_sdk import CountedQueue, start_sdk
from supervisors.reports import ChildCrashed, ChildStarted

NO_FILE = Path("there-is-no-such-file")
TRACE = "0af7651916cd43dd8448eb211c80319c"
INCOMING = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"

JsonSpan = dict[str, Any]
Traced = Callable[..., list[JsonSpan]]


@pytest.fixture
def traced() -> Traced:
    """Runs something with a tracer, and returns the spans that came out."""

    def run(use: Callable[[Tracer], object], **environ: str) -> list[JsonSpan]:
        out = io.StringIO()
        tracer = start(load({"OTEL_TRACES_EXPORTER": "console", **environ}, NO_FILE), out)
        try:
            use(tracer)
        finally:
            tracer.close()
        return [json.loads(line) for line in out.getvalue().splitlines()]

    return run


def hear(tracer: Tracer, before: Span, message: str) -> Span:
    return tracer.hop(
        before.traceparent,
        before.tracestate,
        message,
        "ORDER.journal.order.3",
        "7.0",
        "o1",
        "order",
        3,
    )


def test_an_order_is_one_connected_trace(traced: Traced) -> None:
    def conversation(tracer: Tracer) -> None:
        with tracer.start_order("POST /orders") as root:
            hop = hear(tracer, root, "OrderCreated")
        sent = hop.send("OrderOpened", "ORDER.journal.order.3")
        hop.end(8, 2)
        answer = hear(tracer, sent, "OrderOpened")
        with tracer.call("POST /charges", answer.traceparent, answer.tracestate):
            pass
        answer.end()

    spans = {span["name"]: span for span in traced(conversation)}
    chain = ["POST /orders", "process OrderCreated", "send OrderOpened", "process OrderOpened"]
    chain.append("POST /charges")
    assert sorted(spans) == sorted(chain)
    assert len({span["context"]["trace_id"] for span in spans.values()}) == 1
    assert spans[chain[0]]["parent_id"] is None
    for parent, child in pairwise(chain):
        assert spans[child]["parent_id"] == spans[parent]["context"]["span_id"]


def test_spans_carry_the_messaging_conventions(traced: Traced) -> None:
    def conversation(tracer: Tracer) -> None:
        hop = hear(tracer, tracer.start_order("POST /orders"), "OrderCreated")
        hop.send("OrderOpened", "ORDER.journal.order.3")
        hop.send("OrderReserved", "ORDER.journal.order.3")
        hop.end(8, 2)

    spans = {span["name"]: span for span in traced(conversation)}
    heard = spans["process OrderCreated"]
    assert heard["kind"] == "SpanKind.CONSUMER"
    assert heard["attributes"] == {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "ORDER.journal.order.3",
        "messaging.message.id": "7.0",
        "messaging.message.conversation_id": "o1",
        "message.type": "OrderCreated",
        "order.id": "o1",
        "actor": "order",
        "shard": 3,
    }
    sent = spans["send OrderReserved"]
    assert sent["kind"] == "SpanKind.PRODUCER"
    assert sent["attributes"]["messaging.operation.type"] == "send"
    assert sent["attributes"]["messaging.message.id"] == "8.3"


def test_a_valid_context_of_the_caller_is_continued(traced: Traced) -> None:
    def order(tracer: Tracer) -> None:
        with tracer.start_order("POST /orders", INCOMING, "vendor=1") as root:
            assert root.trace_id == TRACE
            assert root.tracestate == "vendor=1"
            assert hear(tracer, root, "OrderCreated").tracestate == "vendor=1"

    (root,) = traced(order)
    assert root["context"]["trace_id"] == f"0x{TRACE}"
    assert root["parent_id"] == "0xb7ad6b7169203331"


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        "",
        "garbage",
        INCOMING.upper(),
        INCOMING.replace("00-", "ff-", 1),
        INCOMING.replace(TRACE, "0" * 32),
        INCOMING.replace("b7ad6b7169203331", "0" * 16),
        INCOMING + "-more",
        INCOMING[:-1],
        INCOMING.replace("0af", "٣af"),
        INCOMING + "\r\nx: y",
        INCOMING + "," + INCOMING,
        "00-" + "a" * 9_000,
    ],
)
@pytest.mark.parametrize("exporter", ["none", "console"])
def test_a_context_that_makes_no_sense_starts_a_new_trace(
    traced: Traced, garbage: str | None, exporter: str, caplog: pytest.LogCaptureFixture
) -> None:
    def order(tracer: Tracer) -> None:
        root = tracer.start_order("POST /orders", garbage)
        assert root.trace_id != TRACE
        assert int(root.trace_id, 16)
        root.end()

    spans = traced(order, OTEL_TRACES_EXPORTER=exporter)
    assert [span["parent_id"] for span in spans] == ([None] if exporter == "console" else [])
    assert not caplog.records


def test_a_tracestate_that_is_too_long_is_left_behind(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    def order(tracer: Tracer) -> None:
        root = tracer.start_order("POST /orders", INCOMING, "v=" + "x" * 600)
        assert (root.trace_id, root.tracestate) == (TRACE, "")

    traced(order)
    assert not caplog.records


@pytest.mark.parametrize("exporter", ["none", "console"])
def test_what_is_not_sampled_hands_its_context_on(traced: Traced, exporter: str) -> None:
    def conversation(tracer: Tracer) -> None:
        root = tracer.start_order("POST /orders", UNSAMPLED)
        assert root.trace_id == TRACE
        assert root.traceparent.endswith("-00")
        hop = hear(tracer, root, "OrderCreated")
        sent = hop.send("OrderOpened", "ORDER.journal.order.3")
        assert sent.traceparent == hop.traceparent == root.traceparent
        hop.note({"x": 1})
        hop.fail(ValueError())

    assert traced(conversation, OTEL_TRACES_EXPORTER=exporter) == []


@pytest.mark.parametrize("context", ["", "garbage1", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_an_envelope_without_a_context_is_no_trouble(traced: Traced, context: str) -> None:
    def conversation(tracer: Tracer) -> None:
        assert hear(tracer, Span(context), "OrderCreated").traceparent == context
        assert tracer.call("POST /charges", context).traceparent == context
        with tracer.start_order("outer", UNSAMPLED), tracer.call("POST /charges", context):
            assert not trace.get_current_span().get_span_context().is_valid

    assert traced(conversation) == []


def test_the_decision_to_sample_is_made_once_and_kept(traced: Traced) -> None:
    sampled = []

    def orders(tracer: Tracer) -> None:
        for _ in range(200):
            root = tracer.start_order("POST /orders")
            hear(tracer, root, "OrderCreated").end()
            root.end()
            sampled.append(int(root.traceparent[-2:], 16) & 1)

    spans = traced(
        orders, OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.5"
    )
    assert 60 < sum(sampled) < 140
    assert len(spans) == 2 * sum(sampled)


@pytest.mark.parametrize(
    ("sampler", "arg", "new", "continued"),
    [
        ("always_on", "1", 1, 1),
        ("always_off", "1", 0, 0),
        ("traceidratio", "0", 0, 0),
        ("traceidratio", "1", 1, 1),
        ("parentbased_always_on", "1", 1, 1),
        ("parentbased_always_off", "1", 0, 1),
        ("parentbased_traceidratio", "0", 0, 1),
    ],
)
def test_samplers_mean_what_the_standard_says(
    traced: Traced, sampler: str, arg: str, new: int, continued: int
) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": arg}
    assert len(traced(lambda tracer: tracer.start_order("x").end(), **environ)) == new
    spans = traced(lambda tracer: tracer.start_order("x", INCOMING).end(), **environ)
    assert len(spans) == continued


def test_what_the_sampler_drops_costs_nothing_further(traced: Traced) -> None:
    def order(tracer: Tracer) -> None:
        root = tracer.start_order("POST /orders", INCOMING)
        assert type(root) is Span
        assert root.traceparent[-1] in "02"

    traced(order, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0")


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@pytest.mark.parametrize("error", [ValueError("no such hat"), HostileError()])
def test_a_failure_shows_in_the_hop_and_in_what_it_did_not_send(
    traced: Traced, error: Exception
) -> None:
    def conversation(tracer: Tracer) -> None:
        hop = hear(tracer, tracer.start_order("POST /orders"), "OrderCreated")
        hop.send("OrderOpened", "ORDER.journal.order.3")
        hop.fail(error)

    sent, heard = traced(conversation)
    assert sent["status"]["status_code"] == heard["status"]["status_code"] == "ERROR"
    assert heard["attributes"]["error.type"] == type(error).__name__
    (event,) = heard["events"]
    assert type(error).__name__ in event["attributes"]["exception.stacktrace"]


def test_within_a_span_it_is_the_current_one(traced: Traced) -> None:
    def order(tracer: Tracer) -> None:
        for context in (INCOMING, UNSAMPLED):
            with tracer.start_order("POST /orders", context) as root:
                current = trace.get_current_span().get_span_context()
                assert f"{current.trace_id:032x}" == TRACE
                assert f"{current.span_id:016x}" == root.traceparent[36:52]
            assert not trace.get_current_span().get_span_context().is_valid

    traced(order)


def test_an_exception_within_a_span_fails_it(traced: Traced) -> None:
    def order(tracer: Tracer) -> None:
        with pytest.raises(KeyError), tracer.start_order("POST /orders"):
            raise KeyError("sku")

    (span,) = traced(order)
    assert span["status"]["status_code"] == "ERROR"


async def test_being_cancelled_is_no_failure(traced: Traced) -> None:
    scope = trio.CancelScope()
    scope.cancel()
    out = io.StringIO()
    tracer = start(load({"OTEL_TRACES_EXPORTER": "console"}, NO_FILE), out)
    with scope, tracer.start_order("POST /orders"):
        await trio.lowlevel.checkpoint()
    tracer.close()
    assert json.loads(out.getvalue())["status"]["status_code"] == "UNSET"


def test_supervision_shows_however_few_orders_are_sampled(traced: Traced) -> None:
    def supervise(tracer: Tracer) -> None:
        tracer.span_report(ChildStarted(path="actors/order.0", at=1.0, args="(3)", restarts=2))
        tracer.span_report(ChildCrashed(path="actors/order.0", at=2.0, error=ValueError("boom")))

    spans = traced(supervise, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0")
    started, crashed = spans
    assert started["name"] == "supervision child_started"
    assert started["attributes"]["supervision.path"] == "actors/order.0"
    assert started["attributes"]["supervision.restarts"] == 2
    assert crashed["status"]["status_code"] == "ERROR"
    assert "boom" in crashed["status"]["description"]
    traced(supervise, OTEL_TRACES_EXPORTER="none")


def test_the_resource_says_who_speaks(traced: Traced) -> None:
    environ = {"INSTANCE_ID": "shop-7", "APP_ENV": "test"}
    (span,) = traced(lambda tracer: tracer.start_order("x").end(), **environ)
    attributes = span["resource"]["attributes"]
    assert attributes["service.name"] == "orders"
    assert attributes["service.instance.id"] == "shop-7"
    assert attributes["deployment.environment.name"] == "test"


def test_resource_attributes_of_the_environment_win(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "region=north,service.name=shop")
    (span,) = traced(lambda tracer: tracer.start_order("x").end())
    attributes = span["resource"]["attributes"]
    assert (attributes["region"], attributes["service.name"]) == ("north", "shop")


def test_a_trace_file_is_appended_to(traced: Traced, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text("before\n")
    environ = {"OTEL_TRACES_EXPORTER": "", "ORDERS_TRACE_FILE": str(file)}
    assert traced(lambda tracer: tracer.start_order("x\ny").end(), **environ) == []
    before, span = file.read_text().splitlines()
    assert before == "before"
    assert json.loads(span)["name"] == "x\ny"


@pytest.mark.parametrize(
    ("environ", "exporter"),
    [
        ({}, TraceExporter.NONE),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, TraceExporter.OTLP),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/x"}, TraceExporter.OTLP),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, TraceExporter.OTLP),
        (
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"},
            TraceExporter.NONE,
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, TraceExporter.CONSOLE),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, TraceExporter.NONE),
        ({"ORDERS_TRACE_FILE": "trace.jsonl"}, TraceExporter.CONSOLE),
    ],
)
def test_traces_go_where_the_environment_says(
    environ: dict[str, str], exporter: TraceExporter
) -> None:
    assert exporter_of(load(environ, NO_FILE)) is exporter


class Collector(HTTPServer):
    """An OTLP collector on loopback, as small as one can be."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorHandler)
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []


class CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.mark.parametrize(
    ("name", "path", "arrives_at"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "", "/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/base/", "/base/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/mine", "/mine"),
    ],
)
def test_spans_reach_a_collector(
    collector: Collector, name: str, path: str, arrives_at: str
) -> None:
    tracer = start(load({name: f"http://127.0.0.1:{collector.server_port}{path}"}, NO_FILE))
    tracer.start_order("POST /orders", INCOMING).end()
    tracer.close()
    ((seen, request),) = collector.requests
    assert seen == arrives_at
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("POST /orders", TRACE)
    assert tracer.dropped == 0


class StuckExporter(SpanExporter):
    """A collector that does not answer until it is let."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.let = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.reached.set()
        self.let.wait(10)
        return SpanExportResult.FAILURE


def test_what_cannot_wait_is_dropped_and_what_fails_is_counted() -> None:
    exporter = StuckExporter()
    queue = CountedQueue(exporter, size_max=4)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(queue)
    tracer = provider.get_tracer("test")
    for _ in range(4):
        tracer.start_span("x").end()
    assert exporter.reached.wait(5)
    for _ in range(3):
        tracer.start_span("x").end()
    assert queue.dropped == 3
    exporter.let.set()
    queue.shutdown()
    assert (queue.exporter.handed, queue.exporter.failed) == (4, 4)


def test_closing_waits_for_nobody_longer_than_it_was_told() -> None:
    exporter = StuckExporter()
    tracer = Tracer(start_sdk(load({}, NO_FILE), exporter))
    tracer.start_order("x").end()
    began = time.monotonic()
    tracer.close(timeout_s=0.05)
    assert time.monotonic() - began < 1
    exporter.let.set()
