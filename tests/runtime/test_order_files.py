"""`orders place FILE`: JSON lines or the retail export, told apart by content; a bad line costs only itself."""

import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.order_files import BadLine, Placement, Withdrawal, read_orders
from runtime.retail import Reason, RetailFormatError, Skip
from runtime.retail.rows import HEADER, LINE_BYTES_MAX

BODY: dict[str, Any] = {
    "customer_id": "17850",
    "currency": "GBP",
    "items": [{"sku": "85123A", "quantity": 6, "unit_price_minor": 255}],
    "payment_token": "tok_ok",
}
GOOD = json.dumps(BODY | {"idempotency_key": "k1"})


def read(*lines: str | bytes, name: str = "orders.jsonl") -> list[Placement | Withdrawal | Skip]:
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return list(read_orders(io.BytesIO(b"\n".join(encoded)), name))


def key_of(line: str, *, before: int = 0, name: str = "orders.jsonl") -> str:
    placement = read(GOOD, *[GOOD] * before, line, name=name)[-1]
    assert isinstance(placement, Placement)
    return placement.idempotency_key


def test_a_line_is_a_body_and_brings_its_key() -> None:
    assert read(GOOD) == [Placement(1, "k1", BODY)]


@pytest.mark.parametrize("first", ["\ufeff" + GOOD, GOOD + "\r", "  " + GOOD + "  "])
def test_a_byte_order_mark_and_stray_space_cost_nothing(first: str) -> None:
    assert read(first, "", GOOD) == [Placement(1, "k1", BODY), Placement(3, "k1", BODY)]


def test_a_line_without_a_key_has_the_same_one_every_time() -> None:
    line = json.dumps(BODY)
    assert key_of(line) == key_of(line + "\r")
    assert (
        len(
            {
                key_of(line),
                key_of(line, before=1),
                key_of(line, name="b"),
                key_of(line + " ", name="\udcff"),
            }
        )
        == 4
    )
    assert key_of(line) != key_of(json.dumps(BODY | {"customer_id": "17851"}))


@pytest.mark.parametrize(
    ("line", "reason", "told"),
    [
        ("{", BadLine.NOT_JSON, "not JSON"),
        (GOOD + "x", BadLine.NOT_JSON, "follows"),
        (GOOD[:-1] + ', "currency": "EUR"}', BadLine.NOT_JSON, "currency"),
        (GOOD.replace("255", "NaN"), BadLine.NOT_JSON, "NaN"),
        (GOOD.replace("255", "9" * 5000), BadLine.NOT_JSON, "5000 digits"),
        (GOOD.replace("255", "[" * 30_000), BadLine.NOT_JSON, "deep"),
        (GOOD.replace("tok_ok", "£").encode("latin-1"), BadLine.NOT_JSON, "UTF-8"),
        (b"\xff\xfe{\0", BadLine.NOT_JSON, "UTF-16"),
        ("[1]", BadLine.NO_OBJECT, "list"),
        ("null", BadLine.NO_OBJECT, "NoneType"),
        (GOOD.replace('"k1"', "1"), BadLine.BAD_KEY, "visible ASCII"),
        (GOOD.replace("k1", ""), BadLine.BAD_KEY, "visible ASCII"),
        (GOOD.replace("k1", "a b"), BadLine.BAD_KEY, "visible ASCII"),
        (GOOD.replace("k1", "k" * 256), BadLine.BAD_KEY, "visible ASCII"),
        (GOOD.replace("255", "2.55"), BadLine.INVALID, r"items\[0\].unit_price_minor"),
        (
            GOOD.replace("6", "0").replace("GBP", "gbp"),
            BadLine.INVALID,
            "quantity.*currency|currency.*quantity",
        ),
        (GOOD.replace("tok_ok", r"\ud800"), BadLine.INVALID, "payment_token"),
        (GOOD[:-1] + ', "status": "confirmed"}', BadLine.INVALID, "status"),
        ("{" + ",".join(f'"f{n}": 1' for n in range(5000)) + "}", BadLine.INVALID, "more faults"),
        (" " * LINE_BYTES_MAX + GOOD, BadLine.TOO_LONG, "65536"),
    ],
)
def test_a_bad_line_is_skipped_and_explained(line: str | bytes, reason: BadLine, told: str) -> None:
    before, skip, after = read(GOOD, line, GOOD)
    assert isinstance(skip, Skip)
    assert (skip.line_no, skip.reason) == (2, reason)
    assert re.search(told, skip.seen)
    assert len(skip.seen) < 2500
    assert skip.seen.isprintable()
    assert isinstance(before, Placement)
    assert isinstance(after, Placement)


def test_the_retail_export_places_orders_and_cancels_the_ones_its_c_invoices_hit() -> None:
    rows = [
        "536365,71053,A,6,2010-12-01 08:26:00,3.39,17850,EIRE",
        "C536366,71053,A,-6,2010-12-01 08:26:00,3.39,17850,EIRE",
        "C536367,22222,A,-6,2010-12-01 08:26:00,3.39,17850,EIRE",
        "536368,POST,A,1,2010-12-01 08:26:00,3.39,17850,EIRE",
    ]
    skip, placement, *rest = read("\ufeff" + HEADER, *rows, name="any.csv")
    assert skip == Skip(5, "536368", Reason.NOT_A_PRODUCT, "'POST'")
    assert isinstance(placement, Placement)
    assert placement.idempotency_key == "online-retail-536365"
    assert placement.body["items"] == [{"sku": "71053", "quantity": 6, "unit_price_minor": 339}]
    assert rest == [
        Withdrawal(3, "online-retail-536365"),
        Skip(4, "C536367", Reason.NO_EARLIER_ORDER),
    ]


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"[]", b"customer_id,sku", b"\x89PNG\r\n", b"\xff\xfe{\0"]
)
def test_a_file_that_is_neither_is_one_clear_error(content: bytes) -> None:
    with pytest.raises(RetailFormatError, match=r"neither JSON lines .* nor the retail export"):
        list(read_orders(io.BytesIO(content), "x"))


@given(st.sampled_from([b"", b"{", GOOD.encode() + b"\n", HEADER.encode() + b"\n"]), st.binary())
def test_no_bytes_make_it_raise_anything_but_a_format_error(start: bytes, content: bytes) -> None:
    try:
        list(read_orders(io.BytesIO(start + content), "x"))
    except RetailFormatError as error:
        assert str(error).isprintable()  # noqa: PT017 - both outcomes are right; neither may be another error.


@pytest.mark.parametrize("depth", range(850, 1000, 7))
def test_nesting_near_the_parsers_limit_is_skipped_too(depth: int) -> None:
    skip = read(GOOD, '{"a":' * depth + "1" + "}" * depth)[1]
    assert isinstance(skip, Skip)
