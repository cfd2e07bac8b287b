"""What the edge reads out of request headers, each into one plain value."""

import re

from starlette.requests import Request

from runtime.edge.problems import Problem
from runtime.trace_context import checked

WAIT_S_MAX = 30
_KEY = re.compile(r"[!-~]{1,255}")
_WAIT = re.compile(r"""(?:^|[,;\s])wait\s*=\s*"?([0-9]{1,9})"?\s*(?:$|[,;])""", re.IGNORECASE)


def idempotency_key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    match keys:
        case [key] if _KEY.fullmatch(key):
            return key
        case []:
            seen = "There is none"
        case [_]:
            seen = "This one is not"
        case _:
            seen = f"There are {len(keys)}"
    raise Problem(
        400,
        "Send one Idempotency-Key of 1 to 255 visible ASCII characters, the same for every attempt"
        f" at one order. {seen}.",
        kind="bad-idempotency-key",
    )


def tenant(request: Request, name: str | None) -> str | None:
    """Whose order it is, as the platform in front of us says in the header of that name; None where there is none."""
    if name is None:
        return None
    tenants = request.headers.getlist(name)
    match tenants:
        case [one] if _KEY.fullmatch(one):
            return one
        case []:
            seen = "There is none"
        case [_]:
            seen = "This one is not"
        case _:
            seen = f"There are {len(tenants)}"
    raise Problem(
        400,
        f"The platform in front of this service says who the customer is in one {name} header of 1 to 255 visible"
        f" ASCII characters. {seen}.",
        kind="bad-tenant",
    )


def require_json(request: Request) -> None:
    """Only application/json, and only as UTF-8."""
    kinds = request.headers.getlist("content-type")
    kind, *parameters = (part.strip().lower() for part in ";".join(kinds).split(";"))
    charsets = [p.partition("=")[2].strip(' "') for p in parameters if p.startswith("charset")]
    if len(kinds) != 1 or kind != "application/json" or any(c != "utf-8" for c in charsets):
        raise Problem(415, "Send the body as Content-Type: application/json, in UTF-8.")


def preferred_wait_s(request: Request) -> int | None:
    """Seconds of `Prefer: wait=N`, at most 30. What RFC 7240 does not know is ignored, as it asks for."""
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    return None if found is None else min(int(found[1]), WAIT_S_MAX)


def valid_traceparent(values: list[str]) -> str | None:
    """The W3C trace context, or None where there is none to be trusted; never a reason to refuse a request."""
    return (checked(values[0]) or None) if len(values) == 1 else None


def traceparent(request: Request) -> str | None:
    return valid_traceparent(request.headers.getlist("traceparent"))


def trace_id(traceparent: str | None) -> str | None:
    return None if traceparent is None else traceparent[3:35]
