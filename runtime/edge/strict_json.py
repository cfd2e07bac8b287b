"""JSON as RFC 8259 means it: what Python's parser lets through by default is refused here, each with its reason."""

import json
import math
from typing import Any, NoReturn

from runtime.edge.problems import shown

DIGITS_MAX = 20  # Sign and digits of any 64-bit integer.
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class JsonError(ValueError):
    """The text is not one JSON value; the message says what was seen and where."""


def parse(body: bytes) -> Any:
    """The one JSON value that `body` holds."""
    if not body:
        raise JsonError("The body is empty; send one JSON object.")
    if body.startswith(UTF8_BOM):
        raise JsonError("The body starts with a byte order mark; send plain UTF-8 without one.")
    if body.startswith(UTF16_BOMS) or 0 in body[:4]:
        raise JsonError("The body looks like UTF-16 or UTF-32; send UTF-8.")
    try:
        return _DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise JsonError(f"The body is not UTF-8: byte {error.start} is {error.reason}.") from error
    except json.JSONDecodeError as error:
        raise JsonError(_where(error)) from error
    except RecursionError as error:
        raise JsonError("The body is nested too deeply; an order needs three levels.") from error


def _where(error: json.JSONDecodeError) -> str:
    place = f"line {error.lineno}, column {error.colno}"
    if error.msg == "Extra data":
        return f"Something follows the JSON value at {place}; send one value and nothing after it."
    return f"The body is not JSON: {error.msg.lower()} at {place}."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f'The key "{shown(twice)}" stands twice in one object; send it once.')
    return members


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise JsonError(f"A number of {len(digits)} digits is out of range; 64 bits are the most.")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"The number {shown(text, 20)} is out of range.")
    return value


def _constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON; numbers are finite.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
)
