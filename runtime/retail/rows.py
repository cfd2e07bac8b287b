"""Reads the shop's export (UCI "Online Retail") row by row: sold, returned, or skipped with the reason.

Nothing that a line holds raises. Only a file that is no such export at all is a `RetailFormatError`.

One physical line is one row, so a stray quote costs its own line and never the rest of the file.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import IO

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LINE_BYTES_MAX = 65_536  # What POST /orders takes as a body; the export's longest line has 150.
INTEGER_MAX = 2**31 - 1  # Of a quantity, and of a price in pence: one line's amount fits 64 bits.

_INVOICE = re.compile(r"C?[0-9]{1,20}")
# Not products: POST, DOT, M, D, C2, S, PADS, CRUK, AMAZONFEE, BANK CHARGES, gift_0001_40 (a voucher) and their like.
_PRODUCT = re.compile(r"[0-9]{5}[A-Z]{0,3}|DCGS[0-9A-Z]{1,16}")
_CUSTOMER = re.compile(r"[0-9]{1,20}")
_COUNTRY = re.compile(r"[A-Za-z][A-Za-z .'-]{0,63}")
_QUANTITY = re.compile(r"-?[0-9]{1,20}")
_PRICE = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")  # 24 digits: Decimal holds 28 exactly.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class RetailFormatError(Exception):
    """The file is not what it should be. The text says what was found and what to give instead."""


class Reason(StrEnum):
    """Why a row is no part of an order. A row counts once, under the first reason found."""

    TOO_LONG = "line too long"
    NOT_UTF8 = "not UTF-8"
    CONTROL_CHARACTER = "control character"
    NOT_CSV = "not CSV"
    COLUMNS = "not eight columns"
    INVOICE = "malformed invoice number"
    QUANTITY = "malformed quantity"
    TOO_LARGE = "number too large"
    STOCK_CORRECTION = "stock correction"
    RETURNS_NOTHING = "cancellation that returns nothing"
    NOT_A_PRODUCT = "not a product"
    NO_CUSTOMER = "no customer"
    CUSTOMER = "malformed customer"
    COUNTRY = "malformed country"
    PRICE = "malformed price"
    NO_PRICE = "no price"
    SUB_PENNY = "fraction of a penny"
    OTHER_CUSTOMER = "another customer's row"
    OTHER_PRICE = "second price for one product"
    TOO_MANY_LINES = "beyond 100 lines"
    LATE = "row after its order"
    NO_EARLIER_ORDER = "cancellation without an earlier order"


@dataclass(frozen=True, slots=True)
class Skip:
    """A line that was passed over, and why: safe to print.

    `invoice` is empty where the line does not show it; `seen` is the text at fault, or what is wrong with it.
    """

    line_no: int
    invoice: str
    reason: str
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Sold:
    """A row of an order."""

    line_no: int
    invoice: str
    customer_id: str
    country: str
    sku: str
    quantity: int
    unit_price_minor: int


@dataclass(frozen=True, slots=True)
class Returned:
    """A row of a cancellation. How much came back is not kept: an order is cancelled whole."""

    line_no: int
    invoice: str
    customer_id: str
    sku: str


Row = Sold | Returned | Skip


def read_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The file's lines; of one beyond LINE_BYTES_MAX only the beginning, which still shows that it is too long."""
    while line := file.readline(LINE_BYTES_MAX + 1):
        yield line
        while len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            line = file.readline(LINE_BYTES_MAX + 1)


def read_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """Parse one line after the other; blank ones are no rows.

    Raises:
        RetailFormatError: the first line is not the export's header.
    """
    numbered = enumerate(lines, start=1)
    _check_header(next((line for _, line in numbered), b""))
    for line_no, line in numbered:
        if line.strip():
            yield _read_row(line_no, line)


def shown(text: str, length_max: int = 40) -> str:
    """The text cut short and in ASCII, so that it can stand in a message."""
    return ascii(text if len(text) <= length_max else text[:length_max] + "...")


class _Refused(Exception):  # noqa: N818 - it never leaves this file; it only carries the reason up to the row.
    def __init__(self, reason: Reason, seen: str = "") -> None:
        self.reason = reason
        self.seen = seen


def _check_header(line: bytes) -> None:
    if b"\0" in line:
        raise RetailFormatError("the file holds NUL bytes, as UTF-16 does: save it as UTF-8")
    text = line.decode("utf-8-sig", "replace").strip()
    if text.replace('"', "") != HEADER:
        seen = shown(text, 2 * len(HEADER)) if text else "nothing"
        raise RetailFormatError(f"line 1 must be the header {HEADER}, but holds {seen}")


def _read_row(line_no: int, line: bytes) -> Row:
    invoice = ""
    try:
        cells = _cells(line)
        invoice = _matched(_INVOICE, cells[0], Reason.INVOICE)
        if invoice.startswith("C"):
            return _returned(line_no, invoice, cells)
        return _sold(line_no, invoice, cells)
    except _Refused as refused:
        return Skip(line_no, invoice, refused.reason, refused.seen)


def _cells(line: bytes) -> list[str]:
    if len(line) > LINE_BYTES_MAX:
        raise _Refused(Reason.TOO_LONG, f"more than {LINE_BYTES_MAX} bytes")
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _Refused(Reason.NOT_UTF8, f"byte {error.start + 1}") from error
    if control := _CONTROL.search(text):
        raise _Refused(Reason.CONTROL_CHARACTER, shown(control[0]))
    try:
        cells = next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise _Refused(Reason.NOT_CSV, str(error)) from error
    if len(cells) != 8:
        raise _Refused(Reason.COLUMNS, f"{len(cells)} columns")
    return [cell.strip() for cell in cells]


def _sold(line_no: int, invoice: str, cells: list[str]) -> Sold:
    _, stock_code, _, quantity_text, _, price, customer, country = cells
    quantity = _quantity(quantity_text)
    if quantity <= 0:
        raise _Refused(Reason.STOCK_CORRECTION, quantity_text)
    sku = _sku(stock_code)
    customer_id = _customer(customer)
    _matched(_COUNTRY, country, Reason.COUNTRY)
    return Sold(line_no, invoice, customer_id, country, sku, quantity, _minor(price))


def _returned(line_no: int, invoice: str, cells: list[str]) -> Returned:
    _, stock_code, _, quantity_text, _, _, customer, _ = cells
    if _quantity(quantity_text) >= 0:
        raise _Refused(Reason.RETURNS_NOTHING, quantity_text)
    sku = _sku(stock_code)
    return Returned(line_no, invoice, _customer(customer), sku)


def _quantity(text: str) -> int:
    quantity = int(_matched(_QUANTITY, text, Reason.QUANTITY))
    if abs(quantity) > INTEGER_MAX:
        raise _Refused(Reason.TOO_LARGE, text)
    return quantity


def _sku(stock_code: str) -> str:
    # The tills wrote 85123a and 85123A for the same thing.
    return _matched(_PRODUCT, stock_code.upper(), Reason.NOT_A_PRODUCT)


def _customer(text: str) -> str:
    if not text:
        raise _Refused(Reason.NO_CUSTOMER)
    return _matched(_CUSTOMER, text, Reason.CUSTOMER)


def _minor(price: str) -> int:
    """Pence, exactly: 2.5500 is 255, and 0.001 is refused rather than rounded."""
    minor = Decimal(_matched(_PRICE, price, Reason.PRICE)).scaleb(2)
    if minor <= 0:
        raise _Refused(Reason.NO_PRICE, price)
    if minor > INTEGER_MAX:
        raise _Refused(Reason.TOO_LARGE, price)
    if minor != int(minor):
        raise _Refused(Reason.SUB_PENNY, price)
    return int(minor)


def _matched(pattern: re.Pattern[str], text: str, reason: Reason) -> str:
    if not pattern.fullmatch(text):
        raise _Refused(reason, shown(text))
    return text
