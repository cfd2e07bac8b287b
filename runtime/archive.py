"""The archive: what stays known of finished keys, 32 bytes each, however many there are.

A shard must know for RETENTION which orders it has finished, so that a repeated request gets the same answer. A Python
dict spends two hundred bytes on that; here a key is a row in one of 256 byte strings, found by a search in C.
"""

from hashlib import blake2b
from struct import Struct

from actors.actor import Remains

_ROW = Struct(
    ">16s8sQ"
)  # 128 bits of the key's hash, the digest, and seconds since 1970 << 8 | code.
_HASH_BYTES = 16  # Two of a billion keys share one with a probability of 1e-21.
_BUCKETS = 256


class Archive:
    """Remains by key, oldest first. `put` a key once; times must not go backwards for `forget_before` to find all."""

    def __init__(self, packed: bytes = b"") -> None:
        """An empty archive, or what `pack` made."""
        self._buckets = [bytearray() for _ in range(_BUCKETS)]
        self._count = len(packed) // _ROW.size
        for at in range(0, len(packed), _ROW.size):
            self._buckets[packed[at]] += packed[at : at + _ROW.size]

    def __len__(self) -> int:
        return self._count

    def put(self, key: str, remains: Remains, at_ms: int) -> None:
        digest = _hash(key)
        stamp = at_ms // 1000 << 8 | remains.code
        self._buckets[digest[0]] += _ROW.pack(digest, remains.digest.to_bytes(8, "big"), stamp)
        self._count += 1

    def get(self, key: str) -> Remains | None:
        if not self._count:
            return None
        digest = _hash(key)
        bucket = self._buckets[digest[0]]
        at = bucket.find(digest)
        while at >= 0 and at % _ROW.size:  # A match across two rows is none.
            at = bucket.find(digest, at + 1)
        if at < 0:
            return None
        _, body, stamp = _ROW.unpack_from(bucket, at)
        return Remains(stamp & 0xFF, int.from_bytes(body, "big"))

    def forget_before(self, at_ms: int) -> None:
        """Drop what was put before a time."""
        for bucket in self._buckets:
            end = 0
            while end < len(bucket) and _ROW.unpack_from(bucket, end)[2] >> 8 < at_ms // 1000:
                end += _ROW.size
            del bucket[:end]
            self._count -= end // _ROW.size

    def pack(self) -> bytes:
        return b"".join(self._buckets)


def _hash(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=_HASH_BYTES).digest()
