"""Succession: what does not follow in a journal is not believed."""

import pytest

from messages.record import Change, Cursor, Record, RecordError, encode_record
from runtime.log import Entry
from runtime.succession import StrangeRecordError, Succession, owner_of

STATES = (Change("o1", b"state"),)


def entry(owner: str, turn: int, *, states: tuple[Change, ...] = STATES, seq: int = 7) -> Entry:
    payload = encode_record(Record(owner, turn, Cursor(), states if turn else ()))
    return Entry(seq, "ORDER.journal.order.0", payload, 0)


def read(*records: tuple[str, int]) -> None:
    succession = Succession()
    for owner, turn in records:
        succession.read(entry(owner, turn))


@pytest.mark.parametrize(
    "records",
    [
        [("a/1", 0), ("a/1", 1), ("a/1", 2)],
        [("a/1", 0), ("a/2", 0), ("a/2", 1), ("b/1", 0), ("b/1", 1)],
        [("a/1", 0), ("a/1", 1), ("a/1", 0), ("a/1", 1)],  # Another process of the same name.
        [("a/1", 7), ("a/1", 8)],  # What stood before has expired, or is in the snapshot.
    ],
)
def test_owners_follow_each_other_and_number_their_records(records: list[tuple[str, int]]) -> None:
    read(*records)


@pytest.mark.parametrize(
    "records",
    [
        [("a/1", 0), ("a/1", 1), ("a/1", 1)],  # A copy.
        [("a/1", 0), ("a/1", 1), ("a/1", 2), ("a/1", 1)],
        [("a/1", 0), ("a/1", 1), ("b/1", 0), ("a/1", 2)],  # Of an owner that was fenced off.
        [("a/1", 0), ("a/1", 2)],  # A gap.
        [("a/1", 3), ("elsewhere/1", 4)],
    ],
)
def test_a_copy_a_gap_or_a_record_of_another_journal_is_refused(
    records: list[tuple[str, int]],
) -> None:
    with pytest.raises(
        RecordError,
        match=r"message 7 on ORDER.journal.order.0 cannot be recovered over: it is number",
    ):
        read(*records)


def test_who_begins_knows_nothing_yet() -> None:
    succession = Succession()
    succession.read(entry("a/1", 0))
    begun = encode_record(Record("b/1", 0, Cursor(), STATES))
    with pytest.raises(RecordError, match="number 0 of b/1, after number 0 of a/1"):
        succession.read(Entry(8, "ORDER.journal.order.0", begun, 0))


def test_a_begin_is_believed_only_where_it_says_that_it_stands() -> None:
    """So a copy of one shows, though whoever began had a name that others may have, too."""
    entries = [
        entry("a/1@0", 0, seq=5),
        entry("a/1@0", 1, seq=6),
        entry("a/1@6", 0, seq=8),  # Another process of the same name.
        entry("b/1@8", 0, seq=9),
        entry("a/1@6", 0, seq=11),  # The copy.
        entry("c/1@11", 0, seq=12),  # Who came after it knew no better.
    ]
    with pytest.raises(StrangeRecordError, match=r"message 11 .*number 0 of a/1@6, after number 0"):
        list(Succession().follow(entries))
    believed = [each.seq for each, _ in Succession(strange={11}).follow(entries)]
    assert believed == [5, 6, 8, 9, 12]


def test_what_is_no_record_is_refused_with_its_place() -> None:
    with pytest.raises(RecordError, match=r"message 9 on ORDER.journal.x.0 .* start like a record"):
        Succession().read(Entry(9, "ORDER.journal.x.0", b"rubbish", 0))


def test_what_is_known_is_read_for_what_follows_it_and_what_is_strange_is_passed_over() -> None:
    entries = [
        entry("a/1", 3, seq=5),
        entry("b/1", 9, seq=6),
        entry("a/1", 4, seq=7),
    ]
    followed = Succession(5, {6}).follow(entries)
    assert [(each.seq, record.turn) for each, record in followed] == [(7, 4)]
    with pytest.raises(StrangeRecordError):
        list(Succession(5).follow(entries))


def test_a_strangers_message_has_no_owner() -> None:
    assert owner_of(entry("a/1", 3)) == "a/1"
    assert owner_of(Entry(9, "ORDER.journal.x.0", b"rubbish", 0)) == ""
    assert owner_of(None) == ""
