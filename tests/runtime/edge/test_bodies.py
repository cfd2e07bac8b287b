"""What is wrong with an order's body, and how the answer names it."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.edge.bodies import new_order
from runtime.edge.problems import FAULTS_SHOWN_MAX, Problem

MISSING = object()
LINE = {"sku": "85123A", "quantity": 6, "unit_price_minor": 255}


def faults(body: Any) -> dict[str, str]:
    """Field to message, of a body that must be refused as 422."""
    with pytest.raises(Problem) as caught:
        new_order(json.dumps(body).encode(), "o1")
    assert caught.value.status == 422
    seen = json.loads(caught.value.body())
    return {fault["field"]: fault["message"] for fault in seen["errors"]}


def each(field: str, *values: Any) -> list[tuple[str, Any]]:
    return [(field, value) for value in values]


def lines(count: int) -> list[dict[str, Any]]:
    return [{**LINE, "sku": f"S{n}"} for n in range(count)]


TEXTS: list[Any] = [
    "",
    "x" * 257,
    "a\x00b",
    "a\x1bb",
    "a\u202eb",
    "a\u200bb",
    "\ud800",
    "a\nb",
    5,
    None,
    ["a"],
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *each("quantity", 0, -1, 1.5, 1.0, True, "2", 2**31, 2**63, None),
        *each("unit_price_minor", 2.55, 255.0, -1, 0, "255", True, 2**63, None),
        *each("sku", *TEXTS, "x" * 65, "two words", "caf\u00e9"),
        *[(field, MISSING) for field in LINE],
    ],
)
def test_a_bad_field_of_a_line_is_named(order: Any, field: str, value: Any) -> None:
    order["items"].append({**LINE, "sku": "71053"})
    order["items"][1][field] = value
    if value is MISSING:
        del order["items"][1][field]
    assert list(faults(order)) == [f"items[1].{field}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *each("customer_id", *TEXTS),
        *each("payment_token", *TEXTS, "x" * 129, "two words"),
        *each("currency", "gbp", "XXX", "ZZZ", "GBP ", "", 826, None, ["GBP"]),
        *each("total_minor", 1531, 0, -1, 1530.0, "1530", True, 2**63),
        *each("items", [], {}, "x", None, lines(101), [5]),
        *[(f, MISSING) for f in ("customer_id", "currency", "items", "payment_token")],
    ],
)
def test_a_bad_field_of_an_order_is_named(order: Any, field: str, value: Any) -> None:
    order[field] = value
    if value is MISSING:
        del order[field]
    [named] = faults(order)
    assert named.split("[")[0] == field


@pytest.mark.parametrize(
    "field", ["status", "order_id", "price", "__proto__", "constructor", "tenant", "a\nb", "\u202e"]
)
def test_a_field_that_nobody_asked_for_is_refused(order: Any, field: str) -> None:
    order[field] = "confirmed"
    order["items"][0][field] = 1
    named = list(faults(order))
    assert len(named) == 2
    assert all(name.isascii() and name.isprintable() for name in named)


def test_a_field_name_that_is_no_text_is_refused(order: Any) -> None:
    assert "no Unicode" in faults({**order, "\ud800": 1})["body"]


@pytest.mark.parametrize("body", [[], "order", 5, None, True, [{}]])
def test_a_body_that_is_no_object_is_refused_as_a_whole(body: Any) -> None:
    assert list(faults(body)) == ["body"]


def test_every_fault_is_named_at_once() -> None:
    body = {
        "currency": "gbp",
        "items": [
            {"sku": "A", "quantity": 0, "unit_price_minor": 1},
            {"sku": "A", "quantity": 1, "unit_price_minor": 2.5},
        ],
        "payment_token": "",
        "status": "confirmed",
    }
    seen = faults(body)
    assert set(seen) == {
        "customer_id",
        "currency",
        "items[0].quantity",
        "items[1].unit_price_minor",
        "payment_token",
        "status",
        "items",
    }
    assert "write GBP" in seen["currency"]
    assert '"A" stands on 2 lines' in seen["items"]
    assert seen["customer_id"] == "is missing"


def test_a_total_beyond_64_bits_is_refused(order: Any) -> None:
    order["items"] = [{"sku": "A", "quantity": 2, "unit_price_minor": 2**62}]
    assert "does not fit" in faults(order)["items"]
    order["items"] = [{"sku": "A", "quantity": 1, "unit_price_minor": 2**63 - 1}]
    assert new_order(json.dumps(order).encode(), "o1").total_minor == 2**63 - 1


def test_a_claimed_total_must_be_the_sum(order: Any) -> None:
    order["total_minor"] = 1531
    assert faults(order) == {"total_minor": "is 1531, but the lines add up to 1530"}


def test_a_total_is_not_doubted_while_a_line_is_at_fault(order: Any) -> None:
    order["total_minor"] = 1531
    order["items"][0]["quantity"] = 0
    assert list(faults(order)) == ["items[0].quantity"]


def test_the_limits_themselves_are_allowed(order: Any) -> None:
    order["items"] = lines(100)
    order["items"][0] = {"sku": "~" * 64, "quantity": 2**31 - 1, "unit_price_minor": 1}
    order["customer_id"] = "\u00e9" * 256
    order["payment_token"] = "t" * 128
    assert len(new_order(json.dumps(order).encode(), "o1").items) == 100


def test_the_answer_to_thousands_of_faults_stays_small(order: Any) -> None:
    seen = faults(order | {f"f{n}": 0 for n in range(5_000)})
    assert len(seen) == FAULTS_SHOWN_MAX + 1
    assert seen["body"] == f"and {5_000 - FAULTS_SHOWN_MAX} more faults"


@pytest.mark.parametrize("hostile", ["'; DROP TABLE orders;--", "<script>", "{{7*7}}", "${jndi:x}"])
def test_hostile_text_is_data(order: Any, hostile: str) -> None:
    order["customer_id"] = hostile
    assert new_order(json.dumps(order).encode(), "o1").customer_id == hostile


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["customer_id", "currency", "items", "payment_token", "total_minor"])
NEARLY_LINES = st.lists(
    st.dictionaries(st.sampled_from(["sku", "quantity", "unit_price_minor"]), JSON_VALUES),
    max_size=3,
)


@given(st.dictionaries(FIELDS, JSON_VALUES | NEARLY_LINES) | JSON_VALUES)
def test_no_json_at_all_raises_anything_but_a_problem(body: Any) -> None:
    with contextlib.suppress(Problem):
        new_order(json.dumps(body).encode(), "o1")
