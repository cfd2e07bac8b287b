"""What a request's head is refused for, before its body is read and before the application sees it. Pure."""

import re

import h11

from runtime.edge.limits import Limits
from runtime.edge.problems import Problem, shown

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"})
_DIRTY_PATH = re.compile(
    rb"%(?:[01][0-9a-f]|7f)|%(?![0-9a-f]{2})|(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE
)


def refuse_head(request: h11.Request, raw_head: bytes, limits: Limits) -> Problem | None:
    """The first reason to refuse this request; `raw_head` is what came over the wire."""
    return (
        _refuse_shape(request, raw_head)
        or _refuse_size(request, limits)
        or _refuse_target(request.target)
        or _refuse_body(request, limits)
    )


def _refuse_shape(request: h11.Request, raw_head: bytes) -> Problem | None:
    if request.http_version not in (b"1.1", b"1.0"):
        return Problem(400, f"HTTP/{request.http_version.decode()} is not spoken; use HTTP/1.1.")
    if raw_head.count(b"\n") != raw_head.count(b"\r\n"):
        return Problem(400, "A line of the head ends in a bare LF; end each with CR LF.")
    if b"\n " in raw_head or b"\n\t" in raw_head:
        return Problem(400, "A header is folded over two lines; write it on one.")
    if request.method not in METHODS:
        method = shown(request.method.decode("ascii"), 20)
        return Problem(501, f"The method {method} is not known; methods are upper-case.")
    return None


def _refuse_size(request: h11.Request, limits: Limits) -> Problem | None:
    if len(request.target) > limits.target_bytes_max:
        return Problem(414, f"The URL is longer than {limits.target_bytes_max} bytes.")
    if len(request.headers) > limits.headers_max:
        return Problem(431, f"There are more than {limits.headers_max} headers.")
    size = sum(len(name) + len(value) + 4 for name, value in request.headers)
    if size > limits.headers_bytes_max:
        return Problem(431, f"The headers are larger than {limits.headers_bytes_max} bytes.")
    return None


def _refuse_target(target: bytes) -> Problem | None:
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        return Problem(400, "Name the resource by its path alone; this is no proxy.")
    if (b"%" in path or b"/." in path) and _DIRTY_PATH.search(path):
        return Problem(400, "The path holds dot segments, control characters or a broken escape.")
    return None


def _refuse_body(request: h11.Request, limits: Limits) -> Problem | None:
    lengths, framed, encoding = [], False, b"identity"
    for name, value in request.headers:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            framed = True
        elif name == b"content-encoding":
            encoding = value.strip().lower()
    if lengths and framed:
        return Problem(400, "Content-Length and Transfer-Encoding exclude each other; send one.")
    if lengths and int(lengths[0]) > limits.body_bytes_max:
        return body_too_large(limits)
    if encoding != b"identity":
        return Problem(
            415, "Send the body without Content-Encoding.", headers={"Accept-Encoding": "identity"}
        )
    return None


def body_too_large(limits: Limits) -> Problem:
    return Problem(413, f"The body is larger than {limits.body_bytes_max} bytes.")
