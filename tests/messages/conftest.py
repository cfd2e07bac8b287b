"""Any message of `orders.v1`, as a Hypothesis strategy made from its descriptor."""

from collections.abc import Callable
from functools import cache

import pytest
from betterproto import Message
from google.protobuf.descriptor import FieldDescriptor as F
from hypothesis import strategies as st

from messages.codec import descriptor, message_class

AnyMessage = Callable[[str], st.SearchStrategy[Message]]

_SCALARS: dict[int, st.SearchStrategy[object]] = {
    F.TYPE_STRING: st.text(max_size=12),
    F.TYPE_BYTES: st.binary(max_size=12),
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_INT64: st.integers(0, 2**63 - 1),
    F.TYPE_UINT64: st.integers(0, 2**64 - 1),
    F.TYPE_UINT32: st.integers(0, 2**32 - 1),
}


@pytest.fixture(scope="session")
def any_message() -> AnyMessage:
    """From a message's name to any instance of it, without negative numbers: nothing we count is negative."""
    return _any_message


@cache
def _any_message(name: str) -> st.SearchStrategy[Message]:
    fields = descriptor(name).fields
    return st.builds(message_class(name), **{field.name: _any_value(field) for field in fields})


def _any_value(field: F) -> st.SearchStrategy[object]:
    if not field.is_repeated:
        return _SCALARS[field.type]
    if field.message_type is not None:
        return st.lists(_any_message(field.message_type.name).filter(bytes), max_size=4)
    # betterproto leaves empty elements out; test_codec says so in a test of its own.
    return st.lists(_SCALARS[field.type].filter(bool), max_size=4)
