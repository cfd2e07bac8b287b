"""Spans as the console exporter writes them: a JSON object a line."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from runtime.audit.lines import read_lines


class SpanContext(msgspec.Struct, frozen=True, gc=False):
    trace_id: str
    span_id: str


class Link(msgspec.Struct, frozen=True, gc=False):
    context: SpanContext


class Span(msgspec.Struct, frozen=True):
    """As much of a span as the auditor looks at. Ids are hex digits after `0x`."""

    name: str
    context: SpanContext
    kind: str = ""
    parent_id: str | None = None
    attributes: dict[str, str | int | float | bool | list[str | int | float | bool]] = (
        msgspec.field(default_factory=dict)
    )
    links: list[Link] = msgspec.field(default_factory=list)

    @property
    def trace_id(self) -> str:
        return self.context.trace_id.removeprefix("0x")

    @property
    def span_id(self) -> str:
        return self.context.span_id.removeprefix("0x")

    @property
    def parent(self) -> str:
        return (self.parent_id or "").removeprefix("0x")

    def says(self, name: str) -> str:
        """An attribute, or nothing."""
        return str(self.attributes.get(name, ""))


def read_spans(path: Path) -> Iterator[Span]:
    """The spans in a file; one that a killed process left half-written is lost.

    Raises:
        LinesError: there is no such file, or nothing in it is a span.
    """
    return read_lines(path, Span, skips_torn=True)
