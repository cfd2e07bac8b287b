"""Errors as RFC 9457 problem details: every refusal of the edge is one value with a status, a reason and the faults."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:orders:problem:"
FAULTS_SHOWN_MAX = (
    200  # A 64 KiB body has room for 10,000 unknown fields; the answer to it stays small.
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field, such as `items[0].quantity`."""

    field: str
    message: str


class Problem(Exception):  # noqa: N818  # The RFC's own word for it.
    """A request that is refused. `kind` says which rule, and is empty where the status alone says it all."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        faults: tuple[Fault, ...] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.faults = faults
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def body(self, trace_id: str | None = None) -> bytes:
        members: dict[str, Any] = {
            "type": TYPE_PREFIX + self.kind if self.kind else "about:blank",
            "title": self.kind.replace("-", " ").capitalize() or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }
        if self.faults:
            members["errors"] = [
                {"field": fault.field, "message": fault.message} for fault in _shown(self.faults)
            ]
        if trace_id is not None:
            members["trace_id"] = trace_id
        return msgspec.json.encode(members)


def _shown(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    rest = len(faults) - FAULTS_SHOWN_MAX
    if rest <= 0:
        return faults
    return (*faults[:FAULTS_SHOWN_MAX], Fault("body", f"and {rest} more faults"))


def shown(text: str, length_max: int = 80) -> str:
    """A client's own text as an error may repeat it: one line of ASCII, bounded, nothing invisible in it."""
    seen = ascii(text)[1:-1]
    return seen if len(seen) <= length_max else f"{seen[:length_max]}... ({len(text)} characters)"
