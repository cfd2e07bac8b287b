"""Recall what a shard knew: its newest snapshot, and its own records after it.

The shard itself does this when it starts, and so does every reader that wants a shard's state with no instance running.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from actors.actor import Actor, State
from messages.record import (
    Change,
    Cursor,
    SegmentRef,
    Snapshot,
    decode_snapshot,
    encode_snapshot,
)
from runtime.archive import Archive, Segment, name_of
from runtime.log import DamagedError, Log
from runtime.succession import Succession, owner_of

STREAM_PREFIX = "ORDER"
INTAKE = f"{STREAM_PREFIX}.created"
JOURNALS = f"{STREAM_PREFIX}.journal"
LETTERS = f"{STREAM_PREFIX}.dead"
CHANGES_A_RECORD = (
    8  # Reading back, 12 µs a record of any size, 1.3 µs to 2 µs for each change in it.
)
CLOCK_MARGIN_MS = 3_600_000  # By so much the clocks of a cluster's leaders may differ.


class Address(NamedTuple):
    """One shard of one actor. A tuple, since it is hashed for every fact."""

    actor: str
    shard: int

    @property
    def journal(self) -> str:
        return f"{JOURNALS}.{self.actor}.{self.shard}"

    @property
    def letters(self) -> str:
        return f"{LETTERS}.{self.actor}.{self.shard}"

    @property
    def snapshot(self) -> str:
        return f"{self.actor}-{self.shard}"

    def segment(self, name: str) -> str:
        """What a segment of this shard's archive is stored under."""
        return f"{self.snapshot}/{name}"

    def __str__(self) -> str:
        return f"{self.actor}.{self.shard}"


@dataclass(slots=True)
class Memory:
    """All that a shard knows after its record at `seq`. Owned and changed by one task."""

    actor: Actor
    live: dict[str, State] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)
    archive: Archive = field(default_factory=Archive)
    cursor: Cursor = field(default_factory=Cursor)
    seq: int = 0
    owner: str = ""
    snapshot_seq: int = 0
    """Of the newest record that its snapshot holds; 0 without one."""
    unsaved: int = 0
    """What the next start has to read besides the snapshot, in small records."""
    recent: dict[str, tuple[State, str]] = field(default_factory=dict)
    """Each key that the records after the snapshot changed, its state and trace: its view may need repair."""

    def get(self, key: str) -> Any | None:
        """What is known under a key: its live state, or its remains."""
        return self.live.get(key) or self.archive.get(key)

    def put(self, key: str, state: State | None, traceparent: str, at_ms: int) -> None:
        """Let a key have a new state. Something finished moves to the archive."""
        if state is not None and (remains := state.remains) is None:
            self.live[key] = state
            self.traces[key] = traceparent
            return
        self.live.pop(key, None)
        self.traces.pop(key, None)
        if state is not None and remains is not None:
            self.archive.put(key, remains, at_ms)

    def count_record(self, changes: int) -> None:
        """There is one record more to be read; a large one counts as several."""
        self.unsaved += 1 + changes // CHANGES_A_RECORD

    def encode_changes(self, keys: Iterator[str]) -> list[Change]:
        encode = msgspec.msgpack.Encoder().encode
        return [Change(key, encode(self.live[key]), self.traces.get(key, "")) for key in keys]

    def take_snapshot(self, now_ms: int, retention_ms: int) -> "Taken":
        """All of this as bytes to keep: never encoded by halves, since nothing here waits."""
        states = self.encode_changes(iter(self.live))
        segments = self.archive.seal(now_ms, retention_ms)
        snapshot = Snapshot(self.seq, self.cursor, states, [segment.ref for segment in segments])
        new = tuple(segment for segment in segments if not segment.is_stored)
        return Taken(encode_snapshot(snapshot), new)


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot as it was taken, and those of the segments it names that are not stored yet."""

    snapshot: bytes
    new_segments: tuple[Segment, ...]


async def keep(log: Log, address: Address, taken: Taken) -> None:
    """Store a snapshot. What it names is stored before it, so whichever snapshot a crash leaves is whole.

    Raises:
        BrokerLostError: nobody knows how much of it is stored; the snapshot before it may still be the newest.
    """
    for segment in taken.new_segments:
        ref = segment.ref
        if segment.is_away:  # It is stored again, since half of its time is over.
            packed = await read_rows(log, address, ref, now_ms=ref.stored_ms)
        else:
            packed = segment.packed
        if packed is not None:
            await log.put_snapshot(address.segment(ref.name), packed)
        segment.is_stored = True
    await log.put_snapshot(address.snapshot, taken.snapshot)


async def recall(
    log: Log,
    address: Address,
    actor: Actor,
    at_least: int = 0,
    *,
    with_archive: bool = True,
    strange: Collection[int] = (),
) -> Memory:
    """What the shard knew when its newest record was stored; on request without what it has finished.

    `at_least` is a record that is known to be there: a replica that lags may not say so yet. `strange` messages in the
    journal are passed over.

    Raises:
        RecordError: its snapshot is damaged, or newer than this program.
        StrangeRecordError: so is one of its records, or it is not its own.
        DamagedError: a part of its archive is damaged, or gone before its time.
        BrokerLostError: the broker went away meanwhile.
    """
    decode = msgspec.msgpack.Decoder(actor.states).decode
    memory = Memory(actor)
    kept = await log.get_snapshot(address.snapshot)
    snapshot = decode_snapshot(kept) if kept is not None else None
    if snapshot is not None:
        memory.seq = memory.snapshot_seq = snapshot.seq
        memory.cursor = snapshot.cursor
        for change in snapshot.states:
            assert change.state is not None
            memory.put(change.key, decode(change.state), change.traceparent, 0)
    newest = await log.last(address.journal)
    if snapshot is not None and with_archive:
        now_ms = newest.time_ms if newest is not None else 0
        memory.archive = await _load_archive(log, address, snapshot, now_ms)
    if newest is not None:
        memory.owner = owner_of(newest)
        at_least = max(at_least, newest.seq)
    if not at_least:
        memory.seq = 0  # RETENTION has taken the records; the next one is the journal's first.
    if at_least <= memory.seq:
        return memory
    succession = Succession(memory.seq, strange)
    newest_of: dict[str, tuple[Change, int]] = {}  # What is finished never changes again.
    async with log.read(max(0, memory.seq - 1), [address.journal]) as reader:
        while memory.seq < at_least:
            entries = await reader.take()
            for entry, record in succession.follow(entries):
                memory.owner = record.owner  # Of those that came while we read, too.
                memory.cursor = max(memory.cursor, record.cursor)
                changes = record.states
                memory.count_record(len(changes))
                for change in changes:
                    newest_of.pop(change.key, None)  # In the archive it stands where it ended.
                    newest_of[change.key] = (change, entry.time_ms)
            memory.seq = max(memory.seq, entries[-1].seq)
    for change, at_ms in newest_of.values():
        state = decode(change.state) if change.state is not None else None
        memory.put(change.key, state, change.traceparent, at_ms)
        if state is not None:
            memory.recent[change.key] = (state, change.traceparent)
    return memory


async def _load_archive(log: Log, address: Address, snapshot: Snapshot, now_ms: int) -> Archive:
    """The archive that a snapshot names. All is read, since damage has to show at the start; not all is kept."""
    if snapshot.whole_archive:
        return Archive.from_rows(snapshot.whole_archive)
    archive = Archive()
    for ref in reversed(snapshot.segments):
        packed = await read_rows(log, address, ref, now_ms)
        if packed is not None:
            archive.put_before(Segment(packed, ref, is_stored=True))
    return archive


async def lend_rows(
    log: Log, address: Address, archive: Archive, segment: Segment, now_ms: int
) -> None:
    """Bring the rows of a segment back from the broker, or forget it, where its time is over.

    Raises:
        DamagedError: they are damaged, or gone before their time.
    """
    packed = await read_rows(log, address, segment.ref, now_ms)
    if packed is None:
        archive.drop(segment)
    else:
        archive.lend(segment, packed)


async def read_rows(log: Log, address: Address, ref: SegmentRef, now_ms: int) -> bytes | None:
    """A segment's bytes; None where RETENTION has taken them, and nothing in them is younger.

    Raises:
        DamagedError: they are damaged, or gone before their time.
    """
    if ref.expires_ms <= now_ms:
        return None  # Half of it may be gone, which looks like damage.
    may_be_gone = ref.expires_ms <= now_ms + CLOCK_MARGIN_MS
    try:
        packed = await log.get_snapshot(address.segment(ref.name))
    except DamagedError:  # RETENTION takes what is stored piece by piece.
        if may_be_gone:
            return None
        raise
    if packed is None and may_be_gone:
        return None
    if packed is None or name_of(packed) != ref.name:
        raise DamagedError(
            f"segment {ref.name} of the archive of {address} is {'gone' if packed is None else 'damaged'}: restore"
            " the broker from a backup; without it, orders that are finished could be taken for new ones"
        )
    return packed
