"""JSON that Python would take and we do not, and the reason each gets."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.edge.strict_json import JsonError, parse


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"   ", "not JSON"),
        (b"not json", "not JSON"),
        (b'{"a": 1,}', "line 1, column"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} x', "follows the JSON value at line 1, column 10"),
        (b'{"a": 1}{"a": 2}', "follows the JSON value"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-be"), "UTF-16"),
        ('{"a": 1}'.encode("utf-32-le"), "UTF-32"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7"),
        (b'{"a": "\xc0\xaf"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "caf\xe9"}', "not UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e400}', "out of range"),
        (b'{"a": -1e400}', "out of range"),
        (b'{"qty": 1, "qty": 9}', '"qty" stands twice'),
        (b'{"o": [{"q": 1, "q": 1}]}', '"q" stands twice'),
        (rb'{"a": 1, "\u0061": 2}', '"a" stands twice'),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b"[" * 30_000 + b"]" * 30_000, "nested too deeply"),
        (b"9" * 5_000, "5000 digits"),
        (b'{"a": -' + b"9" * 21 + b"}", "22 digits"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": 0x1F}', "not JSON"),
        (b'{"a": "\x00"}', "not JSON"),
        (b'{"a": "line\nbreak"}', "not JSON"),
    ],
)
def test_what_is_not_one_json_value_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(JsonError, match=reason.replace("\\", "")):
        parse(body)


def test_a_value_comes_through_as_it_is() -> None:
    assert parse(b' {"a": [1, -2, true, null, "x", 1.5]} \r\n') == {
        "a": [1, -2, True, None, "x", 1.5]
    }
    assert parse(str(2**63).encode()) == 2**63


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789.eE+-\\ufx tn').map(str.encode))
def test_no_bytes_raise_anything_but_a_json_error(body: bytes) -> None:
    with contextlib.suppress(JsonError):
        parse(body)
