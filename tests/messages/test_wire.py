"""Of a stranger's bytes only one reading is believed: each way to be read in two ways is refused, with its place."""

import time

import pytest
from betterproto import Message
from google.protobuf.descriptor_pb2 import DescriptorProto

from messages.codec import FOREIGN_BYTES_MAX, DecodeError, decode_strictly, encode, message_class
from messages.generated.orders.v1 import OrderCreated, OrderItem
from messages.wire import DEPTH_MAX, WireError, check_wire

STALL_S = 0.05


def refused(payload: bytes, kind: type[Message] = OrderCreated) -> str:
    """Why a stranger's bytes are refused; fails where they are not."""
    with pytest.raises(DecodeError) as caught:
        decode_strictly(kind, payload)
    return str(caught.value)


def test_p1_a_string_longer_than_the_message_is_refused() -> None:
    assert "field 1 (order_id) ends after" in refused(b"\x0a\x05abc")
    assert "out of range" in refused(b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x40abc")


def test_p2_a_message_cut_anywhere_inside_a_field_is_refused() -> None:
    payload = encode(OrderCreated(order_id="o-1", items=[OrderItem("85123A", 6, 255)]))
    whole_fields = {len(encode(OrderCreated(order_id="o-1")))}
    for cut in range(1, len(payload)):
        if cut not in whole_fields:
            refused(payload[:cut])


@pytest.mark.parametrize("payload", [b"\x30", b"\x30\x80", b"\x0a", b"\x0a\x80", b"\x8a"])
def test_p3_a_number_that_does_not_end_is_refused(payload: bytes) -> None:
    assert "does not end" in refused(payload)


def test_p4_a_number_of_eleven_bytes_or_of_a_megabyte_is_refused() -> None:
    assert "does not end" in refused(b"\x30" + b"\xff" * 10 + b"\x01")
    assert "does not end" in refused(b"\xff" * FOREIGN_BYTES_MAX)
    assert "at most 131072" in refused(b"\xff" * 1_000_000)


def test_p5_a_number_of_more_than_64_bits_is_refused() -> None:
    assert "out of range" in refused(b"\x30" + b"\xff" * 9 + b"\x7f")


def test_p5_a_negative_amount_is_refused() -> None:
    assert "field 6 (total_minor) is out of range" in refused(b"\x30" + b"\xff" * 9 + b"\x01")


@pytest.mark.parametrize(
    ("name", "field", "most"),
    [
        ("OrderCreated", "total_minor", 2**63 - 1),
        ("Record", "turn", 2**64 - 1),
        ("Envelope", "cause_index", 2**32 - 1),
        ("DeadLetter", "retryable", 1),
    ],
)
def test_p6_the_largest_number_of_a_field_is_read_and_the_next_is_refused(
    name: str, field: str, most: int
) -> None:
    kind = message_class(name)
    head = encode(kind(**{field: 1}))[:-1]
    assert getattr(decode_strictly(kind, head + _varint(most)), field) == most
    assert "out of range" in refused(head + _varint(most + 1), kind)


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def test_p6_a_number_beyond_its_field_is_refused() -> None:
    two_to_the_40 = b"\x28\x80\x80\x80\x80\x80\x20"
    reason = refused(two_to_the_40, message_class("Envelope"))
    assert "field 5 (cause_index) is out of range" in reason


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x02\x00", "field number 0"),
        (b"\x0b\x0c", "field 1 (order_id) has wire type 3"),
        (b"\x7b\x7c", "field 15 has wire type 3"),
        (b"\x0c", "field 1 (order_id) has wire type 4"),
        (b"\x0e\x00", "field 1 (order_id) has wire type 6"),
        (b"\x0f\x00", "field 1 (order_id) has wire type 7"),
    ],
    ids=["number 0", "group", "unknown group", "group end", "type 6", "type 7"],
)
def test_p7_a_tag_that_protobuf_does_not_have_is_refused(payload: bytes, reason: str) -> None:
    assert reason in refused(payload)


def test_p7_a_tag_of_more_than_32_bits_is_refused() -> None:
    assert refused(b"\x8a\x80\x80\x80\x10\x00").endswith("a number is out of range at byte 0")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x08\x05", "field 1 (order_id) has wire type 0"),
        (b"\x32\x03abc", "field 6 (total_minor) has wire type 2"),
        (b"\x1a\x02\x08\x05", "field 1 (sku) has wire type 0"),
    ],
    ids=["a string as varint", "a number as bytes", "within a line"],
)
def test_p8_a_field_of_another_type_is_refused(payload: bytes, reason: str) -> None:
    assert reason in refused(payload)


def test_p9_a_field_of_a_fixed_width_is_refused() -> None:
    assert "field 6 (total_minor) has wire type 5" in refused(b"\x35" + bytes(4))
    assert "field 1 (order_id) has wire type 1" in refused(b"\x09" + bytes(8))


def test_p10_a_line_that_is_a_number_is_refused() -> None:
    assert "field 3 (items) has wire type 0" in refused(b"\x18\x05")


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_p11_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    payload = b"\x0a" + bytes([len(text)]) + text
    assert "field 1 (order_id) is not UTF-8" in refused(payload)


def test_p13_what_a_newer_sender_adds_is_accepted_and_passed_on() -> None:
    newer_item = encode(OrderItem("hat", 1, 100)) + b"\x7a\x04gift"
    payload = (
        b"\x0a\x03o-1\x1a"
        + bytes([len(newer_item)])
        + newer_item
        + b"\x30\x64"
        + b"\xfa\x01\x03new"
        + b"\xf8\x01\x07"
    )
    order = decode_strictly(OrderCreated, payload)
    assert (order.items, order.total_minor) == ([OrderItem("hat", 1, 100)], 100)
    assert encode(order) == payload


def test_p14_nothing_at_all_is_not_a_message() -> None:
    assert refused(b"") == "an empty payload is not a OrderCreated"


@pytest.mark.parametrize("name", ["order_id", "total_minor"])
def test_p15_a_field_that_stands_there_twice_is_refused(name: str) -> None:
    value = {"order_id": "o-1", "total_minor": 5}[name]
    once = encode(OrderCreated(**{name: value}))  # type: ignore[arg-type]
    assert f"({name}) stands there 2 times" in refused(once + once)


def test_p15_a_quantity_that_stands_there_twice_within_a_line_is_refused() -> None:
    assert "field 2 (quantity) stands there 2 times" in refused(b"\x1a\x04\x10\x01\x10\x09")


@pytest.mark.parametrize("depth", [DEPTH_MAX, 5000])
def test_p17_messages_nested_too_deeply_are_refused(depth: int) -> None:
    """None of ours can be; a descriptor describes types within types."""
    payload = b""
    for _ in range(depth):
        payload = b"\x1a" + _length(payload) + payload
    if depth <= DEPTH_MAX:
        check_wire(DescriptorProto.DESCRIPTOR, payload)
        return
    with pytest.raises(WireError, match="nested deeper than 20"):
        check_wire(DescriptorProto.DESCRIPTOR, payload)


def _length(payload: bytes) -> bytes:
    size = len(payload)
    return bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])


def test_p17_five_thousand_nested_groups_are_refused() -> None:
    assert "wire type 3" in refused(b"\x7b" * 5000 + b"\x7c" * 5000)


@pytest.mark.parametrize(
    "flood",
    [
        b"\x1a\x00" * 32768,
        b"\x78\x00" * 32768,
        (b"\x1a\x3c" + b"\x78\x00" * 30) * 1000,
        b"\xa8\x01\x00" * 21845,
    ],
    ids=["empty lines", "unknown fields", "unknown fields within lines", "longer tags"],
)
def test_p18_a_flood_of_small_fields_is_refused_by_its_count(flood: bytes) -> None:
    began_s = time.thread_time()
    reason = refused(flood)
    assert "more than 5000 fields" in reason or "stands there 1001 times" in reason
    assert time.thread_time() - began_s < STALL_S


@pytest.mark.parametrize(
    "text", ['{"order_id":"x"}', "[1,2]", "hello, world", "GET / HTTP/1.1", "\n"]
)
def test_p19_text_is_not_a_message(text: str) -> None:
    refused(text.encode())


def test_p20_bytes_of_another_message_are_refused_where_their_types_differ() -> None:
    refused(encode(message_class("StockCounted")(sku="hat", on_hand=3)))  # type: ignore[call-arg]


def test_an_order_at_the_limit_of_its_bytes_is_read_and_one_byte_more_is_refused() -> None:
    head = encode(OrderCreated(order_id="o-1"))
    filler = FOREIGN_BYTES_MAX - len(head) - 4
    payload = head + encode(OrderCreated(customer_id="x" * filler))
    assert len(payload) == FOREIGN_BYTES_MAX
    assert len(decode_strictly(OrderCreated, payload).customer_id) == filler
    assert "at most" in refused(head + encode(OrderCreated(customer_id="x" * (filler + 1))))
