"""The short way to read an order takes nothing that the long way would not take as the same order."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.edge.bodies import read_any_order
from runtime.edge.problems import Problem
from runtime.edge.usual_orders import usual_order

LINES_MAX = 3

ORDER: dict[str, Any] = {
    "customer_id": "Zoë",
    "currency": "GBP",
    "items": [
        {"sku": "85123A", "quantity": 6, "unit_price_minor": 255},
        {"sku": "71053", "quantity": 1, "unit_price_minor": 339},
    ],
    "payment_token": "tok_ok",
}
TEXT = json.dumps(ORDER, ensure_ascii=False)

NUMBERS = [True, 0, 1, -1, 1.0, 1869, 2**31, 2**63]
TEXTS = ["", "x", "a b", "\n", "\u202e", "\ud800", "gbp", "EUR", "85123A"]
LONG_TEXTS = ["k" * 64, "k" * 65, "k" * 128, "k" * 129, "é" * 256, "é" * 257]
VALUES: st.SearchStrategy[Any] = st.sampled_from([None, *NUMBERS, *TEXTS, *LONG_TEXTS, [], {}])
KEYS = st.sampled_from([*ORDER, "total_minor", "sku", "quantity", "unit_price_minor", "more"])


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """An order in which some things were set, left out or repeated, at the top or in an item."""
    order: dict[str, Any] = json.loads(TEXT)
    for _ in range(draw(st.integers(0, 2))):
        where = draw(st.sampled_from([order, *order.get("items", ())]))
        where[draw(KEYS)] = draw(VALUES)
        if not isinstance(order.get("items"), list):
            break
    if isinstance(order.get("items"), list):
        more = draw(st.lists(st.sampled_from(ORDER["items"]), max_size=2))
        order["items"] = [*order["items"], *more]
    return json.dumps(order, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """An order of which some bytes were replaced by others."""
    body = bytearray(TEXT.encode())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = start + draw(st.integers(0, 12))
        body[start:end] = draw(
            st.sampled_from([b"", b'"', b"\\", b"\xff", b"\0", b",", b"0", b" "])
        )
    return bytes(body)


MORE_LINES = ', {"sku": "a", "quantity": 1, "unit_price_minor": 1}, {"sku": "b", "quantity": 1, "unit_price_minor": 1}'
FAULTY = [
    TEXT.replace("{", '{"currency": "EUR", ', 1).encode(),
    TEXT.replace('"sku"', '"sku": "71053", "sku"', 1).encode(),
    TEXT.replace('"sku"', '"s\\u006bu": "71053", "sku"', 1).encode(),
    TEXT.replace("{", '{"total_minor": null, ', 1).encode(),
    TEXT.replace("{", '{"total_minor": 1, ', 1).encode(),
    TEXT.replace("339", str(2**63 - 1)).encode(),
    TEXT.replace("71053", "85123A").encode(),
    TEXT.replace("71053", "k" * 65).encode(),
    TEXT.replace("71053", "7 1").encode(),
    TEXT.replace("tok_ok", "k" * 129).encode(),
    TEXT.replace("tok_ok", "tök").encode(),
    TEXT.replace("Zoë", "é" * 257).encode(),
    TEXT.replace("Zoë", "").encode(),
    TEXT.replace("Zoë", "\u202e").encode(),
    TEXT.replace("Zoë", "\\ud800").encode(),
    TEXT.replace("GBP", "gbp").encode(),
    TEXT.replace(": 6", ": 0").encode(),
    TEXT.replace(": 6", ": 2147483648").encode(),
    TEXT.replace("255", "0").encode(),
    TEXT.replace("255", "255.0").encode(),
    TEXT.replace("}]", "}" + MORE_LINES + "]").encode(),
    b"\xef\xbb\xbf" + TEXT.encode(),
    TEXT.encode("utf-16"),
    TEXT.encode("latin-1"),
]


@pytest.mark.parametrize("body", FAULTY)
def test_an_order_with_a_fault_does_not_go_the_short_way(body: bytes) -> None:
    assert usual_order(body, "o1", LINES_MAX) is None


@given(st.one_of(changed(), mangled()))
def test_what_the_short_way_takes_the_long_way_takes_as_the_same(body: bytes) -> None:
    short = usual_order(body, "o1", LINES_MAX)
    try:
        long = read_any_order(body, "o1", LINES_MAX)
    except Problem:
        long = None
    assert short in (None, long)


@pytest.mark.parametrize("more", [{}, {"total_minor": 6 * 255 + 339}])
def test_an_order_without_a_fault_goes_the_short_way(more: dict[str, int]) -> None:
    body = json.dumps(ORDER | more, ensure_ascii=False).encode()
    assert usual_order(body, "o1", LINES_MAX) == read_any_order(body, "o1", LINES_MAX)
