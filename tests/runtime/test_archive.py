"""The archive of finished keys."""

import pytest
from msgspec.structs import replace

from actors.actor import Remains
from messages.record import SegmentRef
from runtime import archive as module
from runtime.archive import _BUCKETS, _ROW, Archive, Segment, _bucket_of, _hash, _pack, name_of

HOUR_MS = 3_600_000
RETENTION_MS = 100_000 * HOUR_MS


def fill(archive: Archive, numbers: range) -> Archive:
    for number in numbers:
        archive.put(f"o{number}", remains(number), number * HOUR_MS)
    return archive


def remains(number: int) -> Remains:
    return Remains(number % 256, number)


def knows(archive: Archive, numbers: range) -> bool:
    return [archive.get(f"o{n}") for n in numbers] == [remains(n) for n in numbers]


def test_what_was_put_is_found_and_nothing_else_is() -> None:
    archive = fill(Archive(), range(2_000))
    assert knows(archive, range(2_000))
    assert archive.get("o2000") is None
    assert Archive().get("o1") is None
    assert len(archive) == 2_000


def test_the_largest_code_and_digest_fit() -> None:
    archive = Archive()
    archive.put("o1", Remains(255, 2**64 - 1), 2**41)
    assert archive.get("o1") == Remains(255, 2**64 - 1)


def test_what_is_sealed_is_found_as_before_and_so_is_what_comes_after() -> None:
    archive = fill(Archive(), range(2_000))
    (segment,) = archive.seal(0, RETENTION_MS)
    assert len(segment.packed) == 4 * _BUCKETS + 32 * 2_000
    again = Archive([Segment(segment.packed, segment.ref)])
    for kept in (archive, again):
        fill(kept, range(2_000, 2_100))
        assert len(kept) == 2_100
        assert knows(kept, range(2_100))
        assert kept.get("o2100") is None


def test_a_segment_is_named_by_its_content_alone() -> None:
    one, other = (fill(Archive(), range(10)).seal(0, RETENTION_MS)[0] for _ in range(2))
    assert one.ref == other.ref == SegmentRef(name_of(one.packed), RETENTION_MS + 9 * HOUR_MS)
    assert fill(Archive(), range(9)).seal(0, RETENTION_MS)[0].ref.name != one.ref.name


def test_sealing_again_with_nothing_new_makes_nothing_new() -> None:
    archive = fill(Archive(), range(10))
    (before,) = archive.seal(0, RETENTION_MS)
    assert list(archive.seal(0, RETENTION_MS)) == [before]
    assert list(Archive().seal(0, RETENTION_MS)) == []


def test_segments_stay_few_and_each_row_is_written_a_handful_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SEGMENT_ROWS_MAX", 5_000)
    archive, rows_written = Archive(), 0
    for start in range(0, 40_000, 100):
        fill(archive, range(start, start + 100))
        before = set(archive._segments)
        segments = archive.seal(0, RETENTION_MS)
        rows_written += sum(len(one) for one in set(segments) - before)
    assert knows(archive, range(40_000))
    assert rows_written < 12 * 40_000
    assert len(segments) < 40_000 / 5_000 + 10
    assert max(map(len, segments)) <= 5_000


def test_what_is_older_than_the_retention_is_left_out_when_segments_are_merged() -> None:
    archive = fill(Archive(), range(1_000))
    archive.seal(0, RETENTION_MS)
    fill(archive, range(1_000, 2_000))
    (segment,) = archive.seal(now_ms=1_999 * HOUR_MS, retention_ms=1_600 * HOUR_MS)
    assert len(segment) == len(archive) == 1_601
    assert archive.get("o398") is None
    assert knows(archive, range(399, 2_000))


def test_a_segment_is_dropped_as_a_whole_when_its_youngest_row_is_too_old() -> None:
    archive = fill(Archive(), range(1_000))
    archive.seal(0, 100 * HOUR_MS)
    assert list(archive.seal(1_098 * HOUR_MS, 100 * HOUR_MS)) != []
    assert list(archive.seal(1_099 * HOUR_MS, 100 * HOUR_MS)) == []
    assert (len(archive), archive.get("o999")) == (0, None)


def test_rows_written_by_a_clock_that_went_back_since_keep_their_time_when_they_are_merged() -> (
    None
):
    ahead = Archive()
    ahead.put("o1", remains(1), 8 * HOUR_MS)
    (sealed,) = ahead.seal(8 * HOUR_MS, RETENTION_MS)
    later = Archive([Segment(sealed.packed, sealed.ref)])
    later.put("o2", remains(2), 0)
    (merged,) = later.seal(0, RETENTION_MS)
    assert len(merged) == 2
    assert merged.ref.expires_ms == sealed.ref.expires_ms == RETENTION_MS + 8 * HOUR_MS


@pytest.mark.parametrize(
    ("stored_ms", "now_ms", "is_due"),
    [
        (5 * HOUR_MS, 5 * HOUR_MS, False),
        (5 * HOUR_MS, 5 * HOUR_MS + RETENTION_MS // 2, False),
        (5 * HOUR_MS, 5 * HOUR_MS + RETENTION_MS // 2 + 1, True),
        (5 * HOUR_MS, 5 * HOUR_MS - 1, True),  # By a clock that was ahead: nobody knows when.
        (0, RETENTION_MS, True),  # Neither of one from before this was written down.
    ],
)
def test_a_segment_is_stored_again_when_half_of_its_time_is_over(
    stored_ms: int, now_ms: int, is_due: bool
) -> None:
    (sealed,) = fill(Archive(), range(10)).seal(0, 2 * RETENTION_MS)
    ref = replace(sealed.ref, stored_ms=stored_ms)
    archive = Archive([Segment(sealed.packed, ref, is_stored=True)])
    archive.renew(now_ms, RETENTION_MS)
    (segment,) = archive.seal(now_ms, RETENTION_MS)
    assert segment.is_stored is not is_due
    assert segment.ref == replace(ref, stored_ms=now_ms if is_due else stored_ms)


def test_the_rows_of_the_first_format_are_known_and_sealed_with_the_next_snapshot() -> None:
    (segment,) = fill(Archive(), range(2_000)).seal(0, RETENTION_MS)
    archive = Archive.from_rows(segment.packed[4 * _BUCKETS :])
    assert knows(archive, range(2_000))
    (again,) = archive.seal(0, RETENTION_MS)
    assert again.packed == segment.packed
    assert again.ref.expires_ms == segment.ref.expires_ms + 999  # A row knows the second only.


def test_a_match_across_two_rows_is_none() -> None:
    wanted = _hash("wanted")
    row = _ROW.pack(wanted[:2] + bytes(14), bytes(8), 0)
    rows = bytearray(row * 2)
    rows[24:40] = wanted  # The end of one row and the start of the next.
    buckets = [bytearray() for _ in range(_BUCKETS)]
    buckets[_bucket_of(wanted)] = rows
    young, sealed = Archive(), _pack([buckets], 0)
    young._young = buckets
    assert young.get("wanted") is None
    assert Archive([Segment(sealed, SegmentRef("", 1))]).get("wanted") is None
    rows += _ROW.pack(wanted, (7).to_bytes(8, "big"), 3)
    assert young.get("wanted") == Remains(3, 7)
    sealed = _pack([buckets], 0)
    assert Archive([Segment(sealed, SegmentRef("", 1))]).get("wanted") == Remains(3, 7)
