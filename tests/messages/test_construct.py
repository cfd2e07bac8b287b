"""Quickly constructed messages are what betterproto constructs, field by field and mark by mark."""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
from betterproto import Message
from hypothesis import given
from hypothesis import strategies as st

from messages.codec import fact_names, message_class
from messages.generated.orders import v1

NAMES = sorted(fact_names())


@pytest.fixture(scope="session")
def slow() -> Any:
    """The generated module once more, as betterproto would have it."""
    spec = importlib.util.spec_from_file_location("slow_v1", str(v1.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Where betterproto looks for the types of fields.
    spec.loader.exec_module(module)
    return module


@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_a_message_made_quickly_is_the_one_that_betterproto_makes(
    data: st.DataObject, name: str, slow: Any, any_message: Callable[..., Any]
) -> None:
    filled = vars(data.draw(any_message(name)))
    fields = [field.name for field in dataclasses.fields(getattr(slow, name))]
    some = {field: filled[field] for field in data.draw(st.sets(st.sampled_from(fields)))}
    assert vars(message_class(name)(**some)) == vars(getattr(slow, name)(**some))
    in_order = [filled[field] for field in fields]
    assert vars(message_class(name)(*in_order)) == vars(getattr(slow, name)(*in_order))


@pytest.mark.parametrize("name", NAMES)
def test_lists_belong_to_one_message(name: str) -> None:
    first, second = message_class(name)(), message_class(name)()
    for field, value in vars(first).items():
        if isinstance(value, list | dict):
            assert value is not vars(second)[field]


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="OrderItem has no field colour, size"):
        v1.OrderItem(sku="a", size=1, colour="red")  # type: ignore[call-arg]


def test_a_message_stays_one_that_can_be_changed_compared_and_serialized() -> None:
    item: Message = v1.OrderItem(sku="a", quantity=2)
    item.quantity = 3  # type: ignore[attr-defined]
    assert item == v1.OrderItem(sku="a", quantity=3)
    assert v1.OrderItem().parse(bytes(item)) == item
