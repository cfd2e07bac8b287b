"""Facts become the bytes that every protobuf library reads, and come back as they were."""

from typing import Any

import pytest
from betterproto import Message
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.codec import (
    DecodeError,
    EncodeError,
    decode,
    decode_strictly,
    descriptor,
    encode,
    fact_names,
    message_class,
)
from messages.generated.orders.v1 import (
    Line,
    OrderCreated,
    OrderOpened,
    OrderReserved,
    StockReserved,
)

ALL = sorted(fact_names())


# --- the contracts ---


def test_the_first_order_message_keeps_its_field_numbers() -> None:
    numbers = {f.name: f.number for f in descriptor("OrderCreated").fields}
    assert numbers == {
        "order_id": 1,
        "customer_id": 2,
        "items": 3,
        "currency": 5,
        "total_minor": 6,
        "payment_token": 7,
    }
    numbers = {f.name: f.number for f in descriptor("OrderItem").fields}
    assert numbers == {"sku": 1, "quantity": 2, "unit_price_minor": 4}


@pytest.mark.parametrize(
    ("name", "number"), [("OrderCreated", 4), ("OrderItem", 3)], ids=["total", "price"]
)
def test_the_floating_point_fields_of_old_are_reserved_for_ever(name: str, number: int) -> None:
    described = DescriptorProto()
    descriptor(name).CopyToProto(described)
    assert [(r.start, r.end) for r in described.reserved_range] == [(number, number + 1)]


def test_a_floating_point_total_of_an_old_sender_is_not_taken_for_the_total() -> None:
    old_total = b"\x21" + bytes(8)  # Field 4, a double.
    assert decode_strictly(OrderCreated, b"\x0a\x03o-1" + old_total).total_minor == 0


@pytest.mark.parametrize("name", ALL)
def test_no_message_has_floats_enums_or_messages_of_its_own_kind(name: str) -> None:
    """P12, P16, P17: there is no value that two decoders read differently, and no depth to exhaust."""
    fields = descriptor(name).fields
    allowed = {
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_MESSAGE,
    }
    assert {field.type for field in fields} <= allowed
    assert name not in {field.message_type.name for field in fields if field.message_type}


# --- what we write ourselves ---


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_every_message_has_the_bytes_that_betterproto_gives_it(
    name: str, any_message: Any, data: st.DataObject
) -> None:
    message = data.draw(any_message(name))
    assert encode(message) == bytes(message)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_every_message_comes_back_as_it_was_sent(
    name: str, any_message: Any, data: st.DataObject
) -> None:
    message = data.draw(any_message(name))
    payload = encode(message)
    back = decode(type(message), payload)
    assert back == message
    assert bytes(back) == payload
    assert not payload or decode_strictly(type(message), payload) == message


def test_empty_elements_are_kept_where_betterproto_would_lose_them() -> None:
    fact = StockReserved(order_id="o-1", skus=["", "hat"])
    assert decode(StockReserved, encode(fact)) == fact
    assert decode(StockReserved, bytes(fact)) != fact


def test_a_decoded_message_has_lists_of_its_own() -> None:
    payload = encode(OrderOpened(order_id="o-1", lines=[Line("hat", 1)]))
    decode(OrderOpened, payload).lines.clear()
    assert len(decode(OrderOpened, payload).lines) == 1


@pytest.mark.parametrize(
    "message",
    [
        OrderReserved(order_id="o-1", amount_minor=2**63),
        OrderReserved(order_id="o-1", amount_minor="12"),  # type: ignore[arg-type]
        OrderReserved(order_id="o-1", amount_minor=1.5),  # type: ignore[arg-type]
        OrderReserved(order_id=7),  # type: ignore[arg-type]
        OrderReserved(order_id="\ud800"),
    ],
    ids=["too big", "text", "a fraction", "a number", "half a surrogate pair"],
)
def test_a_value_that_its_field_cannot_carry_is_an_encode_error(message: Message) -> None:
    with pytest.raises(EncodeError, match="OrderReserved: "):
        encode(message)


def test_our_own_bytes_cut_short_are_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="not a OrderCreated"):
        decode(OrderCreated, encode(OrderCreated(order_id="o-1", currency="GBP"))[:-1])


@pytest.mark.parametrize("name", ["NoSuchFact", "", "betterproto", "List", "__doc__"])
def test_a_name_that_is_no_message_is_a_decode_error(name: str) -> None:
    with pytest.raises(DecodeError, match="no message is called"):
        message_class(name)
