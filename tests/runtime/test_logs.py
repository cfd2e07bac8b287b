"""Logs: one event, one line, whatever the values are."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from runtime.config import load
from runtime.config_variables import LogFormat, LogLevel
from runtime.logs import TEXT_CHARS_MAX, configure, log_report
from runtime.tracing import start
from supervisors.reports import (
    ChildCrashed,
    ChildStarted,
    ChildUnkillable,
    GaveUp,
    ProcessEnding,
    RestartScheduled,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
CONTEXT = f"00-{TRACE}-b7ad6b7169203331-00"

log = structlog.get_logger("test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    return stream


def only(out: io.StringIO) -> dict[str, Any]:
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert isinstance(event, dict)
    return event


def test_an_event_is_one_line_of_json_with_its_time_level_and_logger(out: io.StringIO) -> None:
    log.info("order placed", order_id="o1", items=2)
    event = only(out)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "order placed",
        "order_id": "o1",
        "items": 2,
        "level": "info",
        "logger": "test",
    }


def test_libraries_come_out_alike(out: io.StringIO) -> None:
    logging.getLogger("nats.aio.client").warning("lost %s", "127.0.0.1")
    event = only(out)
    assert (event["event"], event["level"]) == ("lost 127.0.0.1", "warning")
    assert event["logger"] == "nats.aio.client"
    assert "timestamp" in event


def test_warnings_come_out_too(out: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        configure(LogLevel.INFO, LogFormat.JSON, out)
        warnings.warn("old ways", stacklevel=1)
    assert "old ways" in only(out)["event"]


def test_what_is_below_the_level_is_left_out(out: io.StringIO) -> None:
    log.debug("quiet")
    logging.getLogger("library").debug("quiet")
    logging.getLogger("httpx").info("GET / 200")
    assert out.getvalue() == ""
    configure(LogLevel.DEBUG, LogFormat.JSON, out)
    log.debug("heard")
    assert only(out)["event"] == "heard"


def test_lines_carry_the_ids_of_the_current_trace(out: io.StringIO) -> None:
    tracer = start(load({}, Path("there-is-no-such-file")))
    with tracer.start_order("POST /orders", CONTEXT):
        log.info("x")
        logging.getLogger("library").info("y")
    for line in out.getvalue().splitlines():
        event = json.loads(line)
        assert (event["trace_id"], event["span_id"]) == (TRACE, "b7ad6b7169203331")


def test_an_event_may_bring_its_own_context(out: io.StringIO) -> None:
    log.info("x", traceparent=CONTEXT)
    event = only(out)
    assert (event["trace_id"], event["span_id"]) == (TRACE, "b7ad6b7169203331")
    assert "traceparent" not in event


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


HOSTILE = [
    "a\r\nlevel=error forged",
    "\x1b[2J\x00\u202e",
    "\udc80",
    b"\xff\n",
    float("nan"),
    float("-inf"),
    10**5000,
    Hostile(),
    [Hostile()],
    {Hostile(): Hostile()},
    {1: {2: {3: {4: {5: {6: 7}}}}}},
    nested(),
    {"a", "b"},
    object(),
    "x" * 100_000,
    ["x"] * 100_000,
    "{jndi:ldap://x} %s %(x)s {0}",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("style", list(LogFormat))
def test_no_value_breaks_its_line(value: object, style: LogFormat) -> None:
    out = io.StringIO()
    configure(LogLevel.INFO, style, out)
    log.info("seen", value=value)
    logging.getLogger("library").info("%s", str(value) if isinstance(value, str) else "x")
    assert out.getvalue().count("\n") == len(out.getvalue().splitlines()) == 2
    assert "could not be rendered" not in out.getvalue()
    assert len(out.getvalue()) < 500_000
    if style is LogFormat.CONSOLE:
        assert out.getvalue().replace("\n", "").isprintable()
    else:
        assert all(
            json.loads(line, parse_constant=pytest.fail) for line in out.getvalue().splitlines()
        )


def test_the_event_itself_cannot_break_its_line() -> None:
    out = io.StringIO()
    configure(LogLevel.INFO, LogFormat.CONSOLE, out)
    log.info("a\nb\x1b[31m")
    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b" not in out.getvalue()


def test_a_record_that_cannot_be_rendered_says_where_it_came_from(out: io.StringIO) -> None:
    configure(LogLevel.INFO, LogFormat.JSON, out)  # Once more, to be rid of pytest's own handler.
    logging.getLogger("library").info("%d", "not a number")
    event = only(out)
    assert event["logger"] == "library"
    assert "test_logs.py:" in event["where"]


def test_a_stream_that_is_gone_stops_nobody(out: io.StringIO) -> None:
    out.close()
    log.info("into the void")


def test_a_traceback_stays_within_its_line_and_shows_no_values(out: io.StringIO) -> None:
    secret = "hunter" + str(2)
    try:
        raise ValueError("boom\n" * 10_000 + secret[:0])
    except ValueError:
        log.exception("failed")
    event = only(out)
    assert event["exception"].endswith("boom")
    assert event["level"] == "error"
    assert len(event["exception"]) < TEXT_CHARS_MAX + 100
    assert secret not in out.getvalue()


def test_on_the_console_a_traceback_has_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogLevel.INFO, LogFormat.CONSOLE)
    try:
        raise ValueError("boom\x1b[2J")
    except ValueError:
        log.exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 3
    assert "\x1b" not in lines[-1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_people_get_a_console_and_programs_get_json(stream: io.StringIO, is_json: bool) -> None:
    configure(LogLevel.INFO, None, stream)
    log.info("x")
    assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(
    ("report", "event", "level", "values"),
    [
        (
            ChildStarted(path="actors/order.0", at=1.0, args="(3)", restarts=2),
            "child_started",
            "info",
            {"path": "actors/order.0", "args": "(3)", "restarts": 2},
        ),
        (
            RestartScheduled(
                path="a",
                at=1.0,
                delay_s=0.1,
                with_others=("b", "c"),
                restarts_in_window=1,
                intensity=3,
            ),
            "restart_scheduled",
            "info",
            {"delay_s": 0.1, "with_others": "b, c", "restarts_in_window": 1, "intensity": 3},
        ),
        (
            ChildCrashed(path="a", at=1.0, error=ValueError("boom")),
            "child_crashed",
            "warning",
            {"exception": "ValueError: boom"},
        ),
        (
            GaveUp(
                path="/",
                at=1.0,
                error=ValueError("boom"),
                child_id="a",
                restarts_in_window=4,
                intensity=3,
                period_s=5.0,
            ),
            "gave_up",
            "error",
            {"child_id": "a", "period_s": 5.0},
        ),
        (
            ChildUnkillable(path="a", at=1.0, stack="x\ny"),
            "child_unkillable",
            "error",
            {"stack": "x\ny"},
        ),
        (
            ProcessEnding(path="/", at=1.0, code=0, reason="asked to"),
            "process_ending",
            "info",
            {"code": 0},
        ),
        (
            ProcessEnding(path="/", at=1.0, code=70, reason="r", chain=("a", "b")),
            "process_ending",
            "error",
            {"code": 70, "chain": "a, b"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_supervision_reports_are_lines(
    out: io.StringIO, report: Any, event: str, level: str, values: dict[str, Any]
) -> None:
    log_report(report)
    line = only(out)
    assert (line["event"], line["level"], line["logger"]) == (event, level, "supervision")
    assert line.items() >= values.items()
    assert "at" not in line
    assert ("boom" in line.get("error", "")) is hasattr(report, "error")
