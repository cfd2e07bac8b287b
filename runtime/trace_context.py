"""W3C trace contexts as texts: which to believe, and the trace they name. What cannot be believed is dropped."""

import re

CHARS_MAX = 255  # A future version may say more than the 55 characters of today's, within reason.

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def checked(traceparent: str) -> str:
    """The text itself where it is a valid `traceparent`, else an empty one. Strangers write anything into headers."""
    found = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) <= CHARS_MAX else None
    if found is None:
        return ""
    version, trace_id, parent_id, more = found.groups()
    zeros = int(trace_id, 16) == 0 or int(parent_id, 16) == 0
    return "" if version == "ff" or zeros or (version == "00" and more) else traceparent


def trace_id_of(traceparent: str) -> str | None:
    """32 hex digits, or None where there is no trace."""
    return traceparent.split("-")[1] if traceparent.count("-") >= 3 else None
