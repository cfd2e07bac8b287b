"""Succession: each record of a journal follows from the one before, or was put there by somebody else.

An owner begins with an empty record, number 0, and numbers on without a gap, until another owner begins; the fence
refuses everything else. So a copy of an earlier record, a record of another journal, or a gap shows, though each record
is sound. Believing it would take a shard back to what it knew before: nobody recovers over it, and a person decides.

An owner's name says which message it begins after: a begin in any other place is a copy, and not a successor's. One
that had to begin on top of whatever was there cannot say, as earlier programs did not, and is believed anywhere.
"""

from collections.abc import Collection, Iterable, Iterator

from messages.record import RawRecord, RecordError
from runtime.log import Entry


class StrangeRecordError(RecordError):
    """A message in a journal that is no record of its owners; `is_sound` says that it is one of somebody's."""

    def __init__(self, entry: Entry, why: str, *, is_sound: bool, letter_id: str = "") -> None:
        find = "" if letter_id else "find it in `orders dead list` and "
        super().__init__(
            f"message {entry.seq} on {entry.subject} cannot be recovered over: {why}. If somebody else has published it"
            f" there, {find}pass over it with `orders dead drop {letter_id or 'ID'} --reason ...`, and let nobody but"
            " the instance publish on ORDER.journal.>; if not, run the version that wrote it, or restore a backup"
        )
        self.entry, self.why, self.is_sound = entry, why, is_sound

    def naming(self, letter_id: str) -> "StrangeRecordError":
        """The same, for a person who is to decide about this letter."""
        return StrangeRecordError(self.entry, self.why, is_sound=self.is_sound, letter_id=letter_id)


def owner_name(instance_id: str, incarnation: int, after: int | None) -> str:
    """The name of who begins right after the message `after` of the journal (0: nothing); None where nobody knows."""
    return f"{instance_id}/{incarnation}" + ("" if after is None else f"@{after}")


def instance_of(owner: str) -> str:
    """The instance that an owner is an incarnation of."""
    return owner.rpartition("/")[0]


class Succession:
    """Reads one journal's records in order, from any of them on.

    Those up to `after` are known, and read only for what has to follow them; `strange` ones are passed over.
    """

    def __init__(self, after: int = 0, strange: Collection[int] = ()) -> None:
        self._after, self._strange = after, strange
        self._owner, self._turn, self._seq = "", -1, 0

    def follow(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, RawRecord]]:
        """The records that are news, each with its entry. Raises like `read`."""
        for entry in entries:
            if entry.seq in self._strange:
                self._seq = entry.seq
            else:
                record = self.read(entry)
                if entry.seq > self._after:
                    yield entry, record

    def read(self, entry: Entry) -> RawRecord:
        """The record in the next entry. After one that is strange, go on to read whose turn it is all the same.

        Raises:
            StrangeRecordError: it is none, or not the one that follows.
        """
        before, self._seq = self._seq, entry.seq
        try:
            record = RawRecord(entry.payload)
        except RecordError as error:
            raise StrangeRecordError(entry, str(error), is_sound=False) from error
        begins = record.turn == 0 and not record.states and _may_begin(record.owner, before)
        follows = record.owner == self._owner and record.turn == self._turn + 1
        if not begins and not follows and self._owner:
            stands = f"number {record.turn} of {record.owner}"
            why = f"it is {stands}, after number {self._turn} of {self._owner}"
            raise StrangeRecordError(entry, why, is_sound=True)
        self._owner, self._turn = record.owner, record.turn
        return record


def _may_begin(owner: str, after: int) -> bool:
    """Whether an owner of this name can have begun after this message."""
    _, at, said = owner.rpartition("/")[2].partition("@")
    return not at or said == str(after)


def owner_of(newest: Entry | None) -> str:
    """Who wrote a journal's newest record; nobody where there is none, or a stranger's message in its place."""
    try:
        return RawRecord(newest.payload).owner if newest is not None else ""
    except RecordError:
        return ""
