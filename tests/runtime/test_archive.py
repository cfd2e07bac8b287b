"""The archive of finished keys."""

from actors.actor import Remains
from runtime.archive import _ROW, Archive, _hash

HOUR_MS = 3_600_000


def filled(count: int) -> Archive:
    archive = Archive()
    for number in range(count):
        archive.put(f"o{number}", Remains(number % 256, number), number * HOUR_MS)
    return archive


def test_what_was_put_is_found_and_nothing_else_is() -> None:
    archive = filled(2_000)
    assert [archive.get(f"o{n}") for n in range(2_000)] == [
        Remains(n % 256, n) for n in range(2_000)
    ]
    assert archive.get("o2000") is None
    assert Archive().get("o1") is None
    assert len(archive) == 2_000


def test_the_largest_code_and_digest_fit() -> None:
    archive = Archive()
    archive.put("o1", Remains(255, 2**64 - 1), 2**41)
    assert archive.get("o1") == Remains(255, 2**64 - 1)


def test_a_packed_archive_is_the_same_again() -> None:
    packed = filled(2_000).pack()
    assert len(packed) == 32 * 2_000
    again = Archive(packed)
    assert (len(again), again.pack()) == (2_000, packed)
    assert again.get("o1999") == Remains(1999 % 256, 1999)


def test_what_was_put_before_a_time_is_forgotten_after_packing_too() -> None:
    for kept in (filled(1_000), Archive(filled(1_000).pack())):
        kept.forget_before(400 * HOUR_MS)
        assert len(kept) == 600
        assert kept.get("o399") is None
        assert kept.get("o400") == Remains(400 % 256, 400)


def test_a_match_across_two_rows_is_none() -> None:
    kept = Archive()
    kept.put("o1", Remains(0, 0), 0)
    kept.put("o1", Remains(0, 0), 0)
    bucket = next(b for b in kept._buckets if b)
    wanted = _hash("wanted")
    bucket[24:40] = wanted  # The end of one row and the start of the next.
    kept._buckets[wanted[0]] = bucket
    assert kept.get("wanted") is None
    bucket += _ROW.pack(wanted, (7).to_bytes(8, "big"), 3)
    assert kept.get("wanted") == Remains(3, 7)
