"""The record: one commit of a shard as one message, in a frame that shows when it is not what was written.

Frame: `ORD` + format version (1 byte) + CRC-32 of the rest (4 bytes, big-endian) + a `Record` of journal.proto. A
snapshot has the same frame around a `Snapshot`.
Facts are decoded only when somebody asks for them, since most readers want few of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import msgspec
from betterproto import Message
from google.protobuf.message import DecodeError as ProtobufDecodeError

from messages.codec import DecodeError, decode, encode, message_class, wire_class

MAGIC = b"ORD"
VERSION = 1
SNAPSHOT_VERSION = (
    2  # 1 held the whole archive; a program that knows only 1 must not pass over the segments.
)
_HEAD = len(MAGIC) + 1 + 4

_Record = wire_class("Record")
_Snapshot = wire_class("Snapshot")
_Letter = wire_class("DeadLetter")


class RecordError(ValueError):
    """These bytes are no record of a format that we know, or not the ones that were written."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """How far a shard has read: everything up to `seq`, and the first `skip` facts addressed to it after that."""

    seq: int = 0
    skip: int = 0


class Envelope(msgspec.Struct, frozen=True):
    """A fact on its way, with what caused it and the trace it belongs to. Its id is its position in the log."""

    fact: Message
    correlation_id: str
    cause_seq: int = 0
    cause_index: int = 0
    traceparent: str = ""
    tracestate: str = ""


class Letter(msgspec.Struct, frozen=True):
    """A fact that was set aside: where it stands, what it was, and why. `seq` 0 means that it never was in the log."""

    seq: int
    index: int
    type: str
    payload: bytes
    reason: str
    attempts: int = 1
    correlation_id: str = ""
    traceparent: str = ""
    subject: str = ""
    retryable: bool = False


class Change(msgspec.Struct, frozen=True):
    """A key's new state, encoded, or None where the key is forgotten; and where its trace goes on."""

    key: str
    state: bytes | None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What one commit changed, each key once."""

    owner: str
    turn: int
    cursor: Cursor
    states: Sequence[Change] = ()
    facts: Sequence[Envelope] = ()
    letters: Sequence[Letter] = ()


def encode_record(record: Record) -> bytes:
    """The framed bytes of a record."""
    made = _Record(
        owner=record.owner,
        turn=record.turn,
        read_seq=record.cursor.seq,
        read_skip=record.cursor.skip,
    )
    for change in record.states:
        made.states.add(key=change.key, state=change.state or b"", traceparent=change.traceparent)
    for envelope in record.facts:
        made.facts.add(
            type=type(envelope.fact).__name__,
            payload=encode(envelope.fact),
            correlation_id=envelope.correlation_id,
            cause_seq=envelope.cause_seq,
            cause_index=envelope.cause_index,
            traceparent=envelope.traceparent,
            tracestate=envelope.tracestate,
        )
    for letter in record.letters:
        made.letters.add(**msgspec.structs.asdict(letter))
    return frame(made.SerializeToString())


def encode_letter(letter: Letter) -> bytes:
    """The protobuf bytes of a `DeadLetter`, unframed: any tool may read them."""
    made: bytes = _Letter(**msgspec.structs.asdict(letter)).SerializeToString()
    return made


def decode_letter(payload: bytes) -> Letter:
    """The letter in bytes of `encode_letter`.

    Raises:
        RecordError: they are none.
    """
    try:
        return _to_letter(_Letter.FromString(payload))
    except ProtobufDecodeError as error:
        raise RecordError(f"it is no dead letter: {error}") from error


def _to_letter(raw: Any) -> Letter:
    return Letter(**{name: getattr(raw, name) for name in Letter.__struct_fields__})


class RawRecord:
    """A record as it was read: its own fields at once, facts and states on demand."""

    __slots__ = ("_parsed", "cursor", "owner", "turn")

    def __init__(self, payload: bytes) -> None:
        """Check the frame and parse.

        Raises:
            RecordError: not a record, or damaged.
        """
        try:
            self._parsed: Any = _Record.FromString(unframe(payload))
        except ProtobufDecodeError as error:
            raise RecordError(f"the checksum holds but it is no record: {error}") from error
        self.owner: str = self._parsed.owner
        self.turn: int = self._parsed.turn
        self.cursor = Cursor(self._parsed.read_seq, self._parsed.read_skip)

    @property
    def states(self) -> list[Change]:
        return [Change(raw.key, raw.state or None, raw.traceparent) for raw in self._parsed.states]

    @property
    def facts(self) -> "list[Envelope | Letter]":
        """The facts owed, in order. One that this version cannot read is returned as a letter saying so."""
        return [_decode_envelope(index, raw) for index, raw in enumerate(self._parsed.facts)]

    @property
    def letters(self) -> list[Letter]:
        return [_to_letter(raw) for raw in self._parsed.letters]


def _decode_envelope(index: int, raw: Any) -> Envelope | Letter:
    try:
        fact = decode(message_class(raw.type), raw.payload)
    except DecodeError as error:
        return Letter(
            seq=0,
            index=index,
            type=raw.type,
            payload=raw.payload,
            reason=str(error),
            correlation_id=raw.correlation_id,
            traceparent=raw.traceparent,
            retryable=True,
        )
    return Envelope(
        fact,
        raw.correlation_id,
        raw.cause_seq,
        raw.cause_index,
        raw.traceparent,
        raw.tracestate,
    )


class SegmentRef(msgspec.Struct, frozen=True):
    """A part of an archive, by name; it may be gone from `expires_ms` on. `stored_ms` is 0 where nobody knows."""

    name: str
    expires_ms: int
    stored_ms: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A shard's memory after its record at `seq`. `whole_archive` is only in those of the first format."""

    seq: int
    cursor: Cursor
    states: Sequence[Change]
    segments: Sequence[SegmentRef] = ()
    whole_archive: bytes = b""


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The framed bytes of a snapshot."""
    made = _Snapshot(
        seq=snapshot.seq,
        read_seq=snapshot.cursor.seq,
        read_skip=snapshot.cursor.skip,
        archive=snapshot.whole_archive,
    )
    for change in snapshot.states:
        made.states.add(key=change.key, state=change.state or b"", traceparent=change.traceparent)
    for ref in snapshot.segments:
        made.segments.add(name=ref.name, expires_ms=ref.expires_ms, stored_ms=ref.stored_ms)
    return frame(made.SerializeToString(), SNAPSHOT_VERSION)


def decode_snapshot(payload: bytes) -> Snapshot:
    """The snapshot in framed bytes, of this format or the one before.

    Raises:
        RecordError: not a snapshot, or damaged.
    """
    try:
        parsed = _Snapshot.FromString(unframe(payload, SNAPSHOT_VERSION))
    except ProtobufDecodeError as error:
        raise RecordError(f"the checksum holds but it is no snapshot: {error}") from error
    return Snapshot(
        parsed.seq,
        Cursor(parsed.read_seq, parsed.read_skip),
        [Change(raw.key, raw.state, raw.traceparent) for raw in parsed.states],
        [SegmentRef(raw.name, raw.expires_ms, raw.stored_ms) for raw in parsed.segments],
        parsed.archive,
    )


def frame(body: bytes, version: int = VERSION) -> bytes:
    """Put magic, version and checksum before `body`."""
    return b"".join((MAGIC, bytes((version,)), crc32(body).to_bytes(4, "big"), body))


def unframe(payload: bytes, newest: int = VERSION) -> bytes:
    """The body of a frame of a version up to `newest`.

    Raises:
        RecordError: the magic, the version or the checksum is not ours.
    """
    if payload[: len(MAGIC)] != MAGIC or len(payload) < _HEAD:
        raise RecordError("it does not start like a record")
    if not VERSION <= payload[len(MAGIC)] <= newest:
        raise RecordError(
            f"it has format version {payload[len(MAGIC)]}; this program reads {newest}: upgrade it"
        )
    body = payload[_HEAD:]
    if crc32(body) != int.from_bytes(payload[len(MAGIC) + 1 : _HEAD], "big"):
        raise RecordError("its checksum does not hold: it was changed or cut short")
    return body
