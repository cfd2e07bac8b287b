"""A record comes back as it was written, or is known not to be what was written."""

from typing import Any

import msgspec
import pytest
from betterproto import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.codec import decode, encode, fact_names, wire_class
from messages.generated.orders import v1
from messages.record import (
    MAGIC,
    VERSION,
    Change,
    Cursor,
    Envelope,
    Letter,
    RawRecord,
    Record,
    RecordError,
    SegmentRef,
    Snapshot,
    decode_letter,
    decode_snapshot,
    encode_letter,
    encode_record,
    encode_snapshot,
    frame,
    unframe,
)

FACT = v1.StockReserved(order_id="o-1", skus=["hat", "cup"])
ENVELOPE = Envelope(FACT, "o-1", 41, 2, "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "vendor=1")
LETTER = Letter(
    seq=40,
    index=3,
    type="OrderCreated",
    payload=b"\x00\xff",
    reason="no UTF-8",
    attempts=5,
    correlation_id="o-2",
    traceparent="00-x",
    subject="ORDER.created.o-2",
    retryable=True,
)
RECORD = Record(
    owner="host-7/3",
    turn=12,
    cursor=Cursor(40, 2),
    states=(Change("o-1", b"packed", "00-y"), Change("o-0", None)),
    facts=(ENVELOPE, Envelope(v1.PaymentVoided(order_id="o-3"), "o-3")),
    letters=(LETTER,),
)


# --- round trips ---


def test_a_record_comes_back_as_it_was_written() -> None:
    raw = RawRecord(encode_record(RECORD))
    assert (raw.owner, raw.turn, raw.cursor) == ("host-7/3", 12, Cursor(40, 2))
    assert raw.states == list(RECORD.states)
    assert raw.facts == list(RECORD.facts)
    assert raw.letters == [LETTER]


def test_an_empty_record_comes_back_empty() -> None:
    raw = RawRecord(encode_record(Record("host/1", 0, Cursor())))
    assert (raw.owner, raw.turn, raw.cursor) == ("host/1", 0, Cursor(0, 0))
    assert (raw.states, raw.facts, raw.letters) == ([], [], [])


@pytest.mark.parametrize("name", sorted(fact_names()))
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_any_fact_travels_in_a_record(name: str, any_message: Any, data: st.DataObject) -> None:
    fact: Message = data.draw(any_message(name))
    record = Record("host/1", 1, Cursor(1), facts=(Envelope(fact, "o-1"),))
    assert RawRecord(encode_record(record)).facts == [Envelope(fact, "o-1")]


def test_a_letter_comes_back_as_it_was_written() -> None:
    assert decode_letter(encode_letter(LETTER)) == LETTER


def test_a_letter_is_plain_protobuf_for_any_tool() -> None:
    assert decode(v1.DeadLetter, encode_letter(LETTER)).reason == "no UTF-8"


def test_bytes_that_are_no_letter_are_a_record_error() -> None:
    with pytest.raises(RecordError, match="no dead letter"):
        decode_letter(encode_letter(LETTER)[:-1])


def test_a_snapshot_comes_back_as_it_was_written() -> None:
    segments = [SegmentRef("0a", 1), SegmentRef("0b", 2**41, 2**40)]
    snapshot = Snapshot(99, Cursor(98, 1), [Change("o-1", b"packed", "00-y")], segments)
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


def test_a_snapshot_of_the_first_format_is_read_and_a_later_one_refused_by_its_readers() -> None:
    first = wire_class("Snapshot")(seq=9, read_seq=8, archive=b"\x00archive")
    decoded = decode_snapshot(frame(first.SerializeToString()))
    assert decoded == Snapshot(9, Cursor(8), [], [], b"\x00archive")
    with pytest.raises(RecordError, match="format version 2; this program reads 1"):
        unframe(encode_snapshot(decoded), 1)
    with pytest.raises(RecordError, match="format version 3; this program reads 2"):
        decode_snapshot(frame(first.SerializeToString(), 3))


def test_positions_are_ordered_by_record_and_then_by_fact() -> None:
    assert Cursor() < Cursor(4, 1) < Cursor(4, 2) < Cursor(5)


# --- damage ---


def test_what_a_sender_leaves_out_says_that_it_is_unknown() -> None:
    assert Envelope(FACT, "o-1") == Envelope(FACT, "o-1", 0, 0, "", "")
    assert Letter(1, 0, "X", b"", "why") == Letter(1, 0, "X", b"", "why", 1, "", "", "", False)


def test_any_flipped_bit_is_noticed() -> None:
    sound = encode_record(RECORD)
    for at in range(len(sound)):
        for bit in range(8):
            damaged = bytearray(sound)
            damaged[at] ^= 1 << bit
            with pytest.raises(RecordError):
                RawRecord(bytes(damaged))


def test_any_cut_is_noticed() -> None:
    sound = encode_snapshot(
        Snapshot(1, Cursor(1), [Change("o-1", b"packed")], [SegmentRef("0a", 1)])
    )
    for cut in range(len(sound)):
        with pytest.raises(RecordError):
            decode_snapshot(sound[:cut])


def test_bytes_behind_the_end_are_noticed() -> None:
    with pytest.raises(RecordError, match="changed or cut short"):
        RawRecord(encode_record(RECORD) + b"\x00")


@pytest.mark.parametrize(
    "payload", [b"", b"ORD", b'{"owner":"x"}', b"\x00" * 40, b"ORD\x01\x00\x00"]
)
def test_p19_what_does_not_start_like_a_record_is_refused(payload: bytes) -> None:
    with pytest.raises(RecordError, match="does not start like a record"):
        RawRecord(payload)


def test_a_record_of_a_newer_program_says_that_this_one_must_be_upgraded() -> None:
    newer = bytearray(encode_record(RECORD))
    newer[len(MAGIC)] = VERSION + 1
    with pytest.raises(RecordError, match=r"format version 2; this program reads 1: upgrade it"):
        RawRecord(bytes(newer))


def test_p20_a_frame_around_something_else_is_refused() -> None:
    with pytest.raises(RecordError, match="no record"):
        RawRecord(frame(b"\x0a\x7fnot protobuf"))
    with pytest.raises(RecordError, match="no snapshot"):
        decode_snapshot(frame(b"\x0a\x7fnot protobuf"))


def test_a_frame_gives_its_body_back() -> None:
    assert unframe(frame(b"body")) == b"body"
    assert unframe(frame(b"")) == b""


# --- facts that this version cannot read ---


def test_p20_a_fact_of_an_unknown_type_becomes_a_letter_that_is_worth_a_retry() -> None:
    assert _read_alone("OrderTeleported", b"\x0a\x03o-1") == Letter(
        seq=0,
        index=0,
        type="OrderTeleported",
        payload=b"\x0a\x03o-1",
        reason="no message is called 'OrderTeleported' in orders.v1",
        correlation_id="o-1",
        traceparent="00-z",
        retryable=True,
    )


def test_a_fact_whose_bytes_are_not_its_type_becomes_a_letter_with_its_place() -> None:
    made = wire_class("Record")(owner="host/1")
    made.facts.add(type="StockReserved", payload=encode(FACT))
    made.facts.add(type="StockReserved", payload=b"\x0a\x7fo-1")
    sound, letter = RawRecord(frame(made.SerializeToString())).facts
    assert isinstance(sound, Envelope)
    assert isinstance(letter, Letter)
    assert (letter.index, letter.retryable) == (1, True)
    assert letter.reason.startswith("not a StockReserved")


def _read_alone(kind: str, payload: bytes) -> object:
    made = wire_class("Record")(owner="host/1")
    made.facts.add(type=kind, payload=payload, correlation_id="o-1", traceparent="00-z")
    (read,) = RawRecord(frame(made.SerializeToString())).facts
    return read


def test_a_letter_carries_all_that_its_message_can_say() -> None:
    """A field added to one of the two is added to the other."""
    assert set(msgspec.structs.asdict(LETTER)) == {
        field.name for field in wire_class("DeadLetter").DESCRIPTOR.fields
    }
