"""Logs: one event, one line; for people on a terminal, JSON elsewhere. `configure` is called once, at the start.

Our own code logs through structlog, libraries through the standard library; both come out alike, with the ids of the
current trace. Whatever a value is, logging it neither fails nor breaks the line.
"""

import contextlib
import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields
from typing import IO, Any

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from runtime.config_variables import LogFormat, LogLevel
from supervisors.reports import (
    ChildCrashed,
    ChildUnkillable,
    ErrorReport,
    GaveUp,
    ProcessEnding,
    Report,
)

TEXT_CHARS_MAX = 8192  # Of one value, a traceback being the longest.
ITEMS_MAX = 50
DEPTH_MAX = 4
INT_MAX = 10**18  # Python refuses to print the largest ones.

# They tell at their info level what our own lines and spans tell already, a line for every request.
CHATTY = ("httpx", "hypercorn.access")

_supervision = structlog.get_logger("supervision")


def configure(
    level: LogLevel = LogLevel.INFO,
    format: LogFormat | None = None,  # noqa: A002 - the word that everybody uses.
    stream: IO[str] | None = None,
) -> None:
    """Send every line to `stream` (standard error). Without a format: console on a terminal, JSON elsewhere."""
    out = sys.stderr if stream is None else stream
    console = out.isatty() if format is None else format is LogFormat.CONSOLE
    threshold = logging.getLevelNamesMapping()[level.upper()]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_traceback_of),
                _make_safe,
                *(_console(out.isatty()) if console else (structlog.processors.JSONRenderer(),)),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=threshold, force=True)
    logging.captureWarnings(capture=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def log_report(report: Report) -> None:
    """One line for what a supervisor did."""
    event, values = report_fields(report)
    match report:
        case GaveUp() | ChildUnkillable():
            _supervision.error(event, **values)
        case ProcessEnding(code=code) if code != 0:
            _supervision.error(event, **values)
        case ChildCrashed(error=error):
            _supervision.warning(event, **values, exc_info=error)
        case ErrorReport():
            _supervision.warning(event, **values)
        case _:
            _supervision.info(event, **values)


def report_fields(report: Report) -> tuple[str, dict[str, str | int | float | bool]]:
    """A report as a name in snake case and plain values, for logs and traces."""
    values: dict[str, str | int | float | bool] = {}
    for name in (spec.name for spec in fields(report)):
        match getattr(report, name):
            case bool() | int() | float() | str() as value if name != "at":
                values[name] = value
            case tuple() as items:
                values[name] = ", ".join(map(str, items))
    if isinstance(report, ErrorReport):
        values["error"] = report.error_text
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(report).__name__).lower(), values


class _Handler(logging.StreamHandler[IO[str]]):
    """Writes lines; of a record that cannot be rendered it says where it came from."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name.
        lost = {
            "event": "a log line could not be rendered",
            "level": "error",
            "logger": record.name,
            "where": f"{record.pathname}:{record.lineno}",
            "error": repr(sys.exc_info()[0]),
        }
        # If the stream is gone, nobody is left to tell.
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(json.dumps(lost) + "\n")


def _add_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Ids from the event's own `traceparent`, or else of the current span."""
    parts = str(event.pop("traceparent", "")).split("-")
    context = trace.get_current_span().get_span_context()
    if len(parts) == 4:
        event["trace_id"], event["span_id"] = parts[1:3]
    elif context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _traceback_of(exc_info: Any) -> str:
    """Without the values of variables: they may be secrets."""
    return "".join(traceback.format_exception(exc_info[1])).rstrip()


def _make_safe(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {key: _plain(value, DEPTH_MAX) for key, value in event.items()}


def _plain(value: object, depth: int) -> Any:
    """What JSON can hold: bounded, and never failing."""
    match value:
        case None | bool():
            return value
        case int() if abs(value) < INT_MAX:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case str():
            return _bounded(str(value))
        case list() | tuple() if depth > 0:
            return [_plain(item, depth - 1) for item in value[:ITEMS_MAX]]
        case Mapping() if depth > 0:
            pairs = list(value.items())[:ITEMS_MAX]
            return {_shown(key): _plain(item, depth - 1) for key, item in pairs}
        case _:
            return _shown(value)


def _shown(value: object) -> str:
    try:
        return _bounded(value if isinstance(value, str) else repr(value))
    except Exception:  # noqa: BLE001 - a stranger's repr() may do anything; the line must come out.
        return f"<{type(value).__name__} that cannot be shown>"


def _bounded(text: str) -> str:
    """The end matters most: there a traceback names its error."""
    if len(text) <= TEXT_CHARS_MAX:
        return text
    return f"... ({len(text)} characters) ...{text[-TEXT_CHARS_MAX:]}"


def _console(colors: bool) -> tuple[Processor, ...]:
    return (_escape, structlog.dev.ConsoleRenderer(colors=colors))


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Nothing in a value may start a line of its own, or talk to the terminal; a traceback has lines, though."""
    return {
        key: _visible(value, "\n" if key == "exception" else "") for key, value in event.items()
    }


def _visible(value: Any, allowed: str) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in allowed else ascii(c)[1:-1] for c in value)
