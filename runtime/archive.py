"""The archive: what stays known of finished keys, 32 bytes each in the broker and 4 in memory.

A shard must know for RETENTION which orders it has finished, so that a repeated request gets the same answer. A Python
dict spends two hundred bytes on that; here a key is a row in one of 1,024 byte strings, found by a search in C.

What has finished since the last snapshot is young. The next snapshot seals it into a **segment**, which never changes:
it is stored once, under a name made of its content, and snapshots only list it. A segment that is not much larger than
what comes after it is merged into that, so there are few to search, and each row is written a handful of times.

Of a segment that will not be merged any more only marks stay in memory, 4 bytes of each key's hash. They tell almost
every new key from all that have finished; where they do not, `get` raises RowsAwayError: its rows must be lent first.

Nothing is deleted, so no late word of an earlier owner can take away what a later one counts on: the broker drops each
object RETENTION after it was written. That is by its clock as it is then, and rows have the time that it was when they
were written, which may have been ahead. So nobody counts on an object to outlast its rows: what is still needed is
stored again when half of its time is over.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate
from struct import Struct

from msgspec.structs import replace

from actors.actor import Remains
from messages.record import SegmentRef

SEGMENT_ROWS_MAX = 131_072  # 4 MB: a search of each of its buckets takes a microsecond or two.
LENT_MAX = 4  # Of the segments whose rows were away: 16 MB, and only after old keys were asked for.
MERGE_RATIO = 2  # A segment up to so many times as large as its successor is merged into it.

_ROW = Struct(
    ">16s8sQ"
)  # 128 bits of the key's hash, the digest, and seconds since 1970 << 8 | code.
_HASH_BYTES = 16  # Two of a billion keys share one with a probability of 1e-21.
_MARK_AT, _MARK_BYTES = (
    2,
    4,
)  # In the hash, behind the bucket's bits: one in 3e7 keys has another's in a segment.
_BUCKETS = 1_024  # By the first ten bits of the hash.
_INDEX = Struct(
    f">{_BUCKETS}I"
)  # Where a segment begins: how many rows there are up to each bucket's end.


class RowsAwayError(Exception):
    """`segment` may know the key that was asked for: lend it its rows, and ask again."""

    def __init__(self, segment: "Segment") -> None:
        super().__init__(f"segment {segment.ref.name}")
        self.segment = segment


class Archive:
    """Remains by key, oldest first. `put` a key once, at times that do not go backwards."""

    def __init__(self, segments: Iterable["Segment"] = ()) -> None:
        """An empty archive, or one of sealed segments, oldest first."""
        self._segments = list(segments)
        self._young = _empty_buckets()
        self._young_rows = 0
        self._newest_ms = 0
        self._lent: deque[Segment] = deque()

    @classmethod
    def from_rows(cls, packed: bytes) -> "Archive":
        """The rows of a snapshot of the first format, which held its whole archive."""
        archive = cls()
        for at in range(0, len(packed), _ROW.size):
            archive._add(packed[at : at + _ROW.size])
            second = _ROW.unpack_from(packed, at)[2] >> 8
            archive._newest_ms = max(archive._newest_ms, second * 1000 + 999)
        return archive

    def __len__(self) -> int:
        return self._young_rows + sum(map(len, self._segments))

    def put(self, key: str, remains: Remains, at_ms: int) -> None:
        stamp = at_ms // 1000 << 8 | remains.code
        self._add(_ROW.pack(_hash(key), remains.digest.to_bytes(8, "big"), stamp))
        self._newest_ms = max(self._newest_ms, at_ms)

    def _add(self, row: bytes) -> None:
        self._young[_bucket_of(row)] += row
        self._young_rows += 1

    def get(self, key: str) -> Remains | None:
        """What remains of a key.

        Raises:
            RowsAwayError: a segment has to be lent its rows before anybody can tell.
        """
        digest = _hash(key)
        bucket = _bucket_of(digest)
        young = self._young[bucket]
        found = _search(young, digest, 0, len(young)) if young else None
        mark = digest[_MARK_AT : _MARK_AT + _MARK_BYTES]
        for segment in self._segments:
            if found is None and segment.has_mark(bucket, mark):
                found = segment.search(bucket, digest)
        return found

    def put_before(self, segment: "Segment") -> None:
        """Add a segment that is older than all that there are."""
        self._segments.insert(0, segment)
        self.let_go()

    def lend(self, segment: "Segment", packed: bytes) -> None:
        """Have the rows of a segment here until the next snapshot, or until several others were lent theirs."""
        segment.bring_back(packed)
        self._lent.append(segment)
        if len(self._lent) > LENT_MAX:
            self._lent.popleft().send_away()

    def drop(self, segment: "Segment") -> None:
        """Forget a segment whose time is over."""
        self._segments = [one for one in self._segments if one is not segment]

    def let_go(self) -> None:
        """Keep the rows of those segments alone that may still be merged, or are not stored yet."""
        self._lent.clear()
        rows = 0
        for segment in reversed(self._segments):
            rows += len(segment)  # They would be merged with all that is younger.
            if rows > SEGMENT_ROWS_MAX and segment.is_stored:
                segment.send_away()

    def renew(self, now_ms: int, retention_ms: int) -> None:
        """Let what was stored half the retention ago, or nobody knows when, be stored again with the next snapshot."""
        for segment in self._segments:
            if not now_ms - retention_ms // 2 <= segment.ref.stored_ms <= now_ms:
                segment.is_stored = False

    def seal(self, now_ms: int, retention_ms: int) -> Sequence["Segment"]:
        """Make segments of all there is, without what is older than the retention; oldest first.

        Those that are not stored yet are taken to be so from now on.
        """
        self._segments = [one for one in self._segments if one.ref.expires_ms > now_ms]
        self.let_go()
        if self._young_rows:
            pieces: list[Sequence[bytes | bytearray]] = [self._young]
            rows = self._young_rows
            expires_ms = self._newest_ms + retention_ms
            while self._segments and len(last := self._segments[-1]) <= MERGE_RATIO * rows:
                if rows + len(last) > SEGMENT_ROWS_MAX or last.is_away:
                    break
                pieces.insert(0, last.buckets())
                self._segments.pop()
                rows += len(last)
                expires_ms = max(expires_ms, last.ref.expires_ms)  # Clocks go back, between owners.
            packed = _pack(pieces, (now_ms - retention_ms) // 1000)
            self._segments.append(Segment(packed, SegmentRef(name_of(packed), expires_ms)))
            self._young, self._young_rows = _empty_buckets(), 0
        for segment in self._segments:
            if not segment.is_stored:
                segment.ref = replace(segment.ref, stored_ms=now_ms)
        return self._segments


class Segment:
    """Sealed rows: bucket after bucket, each with its oldest first. `is_stored` once the broker has it."""

    __slots__ = ("_marks", "_packed", "_starts", "is_stored", "ref")

    def __init__(self, packed: bytes, ref: SegmentRef, *, is_stored: bool = False) -> None:
        self._packed: bytes | None = packed
        self.ref = ref
        self.is_stored = is_stored
        self._starts: Sequence[int] = array(
            "I", (0, *_INDEX.unpack_from(packed))
        )  # Of each bucket: its first row.
        marks = bytearray(len(self) * _MARK_BYTES)
        for nth in range(_MARK_BYTES):
            marks[nth::_MARK_BYTES] = packed[_INDEX.size + _MARK_AT + nth :: _ROW.size]
        self._marks = bytes(marks)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def packed(self) -> bytes:
        if self._packed is None:
            raise RowsAwayError(self)
        return self._packed

    @property
    def is_away(self) -> bool:
        """Whether its rows are in the broker alone."""
        return self._packed is None

    def send_away(self) -> None:
        self._packed = None

    def bring_back(self, packed: bytes) -> None:
        self._packed = packed

    def has_mark(self, bucket: int, mark: bytes) -> bool:
        """False of almost every key that is not in this segment, never of one that is."""
        start, end = self._starts[bucket] * _MARK_BYTES, self._starts[bucket + 1] * _MARK_BYTES
        return _find(self._marks, mark, start, end, _MARK_BYTES) >= 0

    def search(self, bucket: int, digest: bytes) -> Remains | None:
        return _search(self.packed, digest, self._at(bucket), self._at(bucket + 1))

    def buckets(self) -> list[bytes]:
        return [self.packed[self._at(n) : self._at(n + 1)] for n in range(_BUCKETS)]

    def _at(self, bucket: int) -> int:
        return _INDEX.size + self._starts[bucket] * _ROW.size


def name_of(packed: bytes) -> str:
    """The name of a segment, which is its checksum, too."""
    return blake2b(packed, digest_size=_HASH_BYTES).hexdigest()


def _search(rows: bytes | bytearray, digest: bytes, start: int, end: int) -> Remains | None:
    at = _find(rows, digest, start, end, _ROW.size)
    if at < 0:
        return None
    _, body, stamp = _ROW.unpack_from(rows, at)
    return Remains(stamp & 0xFF, int.from_bytes(body, "big"))


def _find(table: bytes | bytearray, wanted: bytes, start: int, end: int, width: int) -> int:
    """Where an entry begins so, in a table whose entries are `width` bytes each; -1 if none does."""
    at = table.find(wanted, start, end)
    while at >= 0 and (at - start) % width:  # A match across two entries is none.
        at = table.find(wanted, at + 1, end)
    return at


def _pack(pieces: Sequence[Sequence[bytes | bytearray]], oldest_s: int) -> bytes:
    """One segment out of several pieces, oldest first, without the rows from before `oldest_s`."""
    buckets: list[bytes] = []
    for parts in zip(*pieces, strict=True):
        rows = b"".join(parts)
        start = 0
        while start < len(rows) and _ROW.unpack_from(rows, start)[2] >> 8 < oldest_s:
            start += _ROW.size
        buckets.append(rows[start:])
    ends = accumulate(len(rows) // _ROW.size for rows in buckets)
    return b"".join((_INDEX.pack(*ends), *buckets))


def _empty_buckets() -> list[bytearray]:
    return [bytearray() for _ in range(_BUCKETS)]


def _bucket_of(digest: bytes) -> int:
    return digest[0] << 2 | digest[1] >> 6


def _hash(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=_HASH_BYTES).digest()
