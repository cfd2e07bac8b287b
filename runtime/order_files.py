"""Reads what `orders place FILE` is given: JSON lines or the retail export, told apart by their first line.

JSON lines: on each line the body of one POST /orders, and beside its fields, where one is wanted, an "idempotency_key".
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any

from actors.order_check import LINES_LIMIT
from runtime import retail
from runtime.edge.bodies import new_order
from runtime.edge.problems import Problem
from runtime.edge.strict_json import UTF8_BOM, JsonError, parse
from runtime.retail.rows import LINE_BYTES_MAX, Reason, RetailFormatError, Skip, shown

KEY = "idempotency_key"
FAULTS_TOLD_MAX = 20  # One line of a report; a hostile line has room for thousands.
_KEY = re.compile(r"[!-~]{1,255}")


class BadLine(StrEnum):
    """Why a JSON line is not placed."""

    TOO_LONG = "line too long"
    NOT_JSON = "not JSON"
    NO_OBJECT = "not a JSON object"
    BAD_KEY = "malformed idempotency_key"
    INVALID = "invalid order"


@dataclass(frozen=True, slots=True)
class Placement:
    """An order to place: a valid body of POST /orders under its Idempotency-Key."""

    line_no: int
    idempotency_key: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An order to cancel: the one that was placed under this key."""

    line_no: int
    idempotency_key: str


def read_orders(file: IO[bytes], name: str) -> Iterator[Placement | Withdrawal | Skip]:
    """What the file asks for, in its order; a bad line is a `Skip` and the rest goes on.

    `name` is the file's. It goes into the keys of JSON lines that bring none, so that the same line of the same file is
    the same order however often it is placed. A file that is written anew under an old name should bring its own keys.

    Raises:
        RetailFormatError: the file is neither.
    """
    lines = retail.read_lines(file)
    first = next(lines, b"").removeprefix(UTF8_BOM)
    whole = itertools.chain([first], lines)
    if first.lstrip().startswith(b"{"):
        return _json_orders(whole, name)
    if first.strip(b' "').startswith(b"InvoiceNo"):
        return _retail_orders(whole)
    raise RetailFormatError(
        "this is neither JSON lines (each line one order, starting with {) nor the retail export (the first line its"
        f" header, starting with InvoiceNo): line 1 starts with {shown(first[:40].decode('latin-1'))}"
    )


def _json_orders(lines: Iterable[bytes], name: str) -> Iterator[Placement | Skip]:
    for line_no, line in enumerate(lines, start=1):
        if line.strip():
            yield _json_order(line_no, line, name)


def _json_order(line_no: int, line: bytes, name: str) -> Placement | Skip:
    if len(line) > LINE_BYTES_MAX:
        return Skip(line_no, "", BadLine.TOO_LONG, f"more than {LINE_BYTES_MAX} bytes")
    try:
        body = parse(line.strip())
    except JsonError as error:
        return Skip(line_no, "", BadLine.NOT_JSON, str(error))
    if not isinstance(body, dict):
        return Skip(line_no, "", BadLine.NO_OBJECT, type(body).__name__)
    key = body.pop(KEY) if KEY in body else _key_of(line_no, line, name)
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        return Skip(line_no, "", BadLine.BAD_KEY, "send 1 to 255 visible ASCII characters")
    try:
        # Only its judgement is wanted here. How many lines are too many, the instance alone knows.
        new_order(json.dumps(body).encode(), order_id="", lines_max=LINES_LIMIT)
    except Problem as problem:
        return Skip(line_no, key, BadLine.INVALID, _told(problem))
    return Placement(line_no, key, body)


def _told(problem: Problem) -> str:
    told = [f"{fault.field}: {fault.message}" for fault in problem.faults[:FAULTS_TOLD_MAX]]
    if more := len(problem.faults) - len(told):
        told.append(f"and {more} more faults")
    return "; ".join(told) or problem.detail


def _key_of(line_no: int, line: bytes, name: str) -> str:
    seed = f"{name}\n{line_no}\n".encode("utf-8", "surrogateescape")  # File names may be any bytes.
    return "line-" + hashlib.sha256(seed + line.strip()).hexdigest()


def _retail_orders(lines: Iterable[bytes]) -> Iterator[Placement | Withdrawal | Skip]:
    latest = retail.Latest()
    for one in retail.plan(retail.read_rows(lines)):
        match one:
            case retail.Order():
                latest.remember(one)
                key = retail.idempotency_key(one.invoice)
                body = retail.body(one, retail.payment_token(one.invoice))
                yield Placement(one.line_no, key, body)
            case retail.Cancellation():
                invoices = latest.hit_by(one)
                for invoice in invoices:
                    yield Withdrawal(one.line_no, retail.idempotency_key(invoice))
                if not invoices:
                    yield Skip(one.line_no, one.invoice, Reason.NO_EARLIER_ORDER)
            case retail.Skip():
                yield one
