"""Succession: each record of a journal follows from the one before, or was put there by somebody else.

An owner begins with an empty record, number 0, and numbers on without a gap, until another owner begins; the fence
refuses everything else. So a copy of an earlier record, a record of another journal, or a gap shows, though each record
is sound. Believing it would take a shard back to what it knew before: nobody recovers over it, and a person decides.
"""

from messages.record import RawRecord, RecordError
from runtime.log import Entry


class Succession:
    """Reads one journal's records in order, from any of them on."""

    def __init__(self) -> None:
        self._owner, self._turn = "", -1

    def read(self, entry: Entry) -> RawRecord:
        """The record in the next entry.

        Raises:
            RecordError: it is none, or not the one that follows.
        """
        try:
            record = RawRecord(entry.payload)
            self._check(record)
        except RecordError as error:
            raise RecordError(
                f"message {entry.seq} on {entry.subject} cannot be recovered over: {error}. If somebody else has"
                f" published it there, remove it (nats stream rmm ORDERS {entry.seq}), and let nobody but the instance"
                " publish on ORDER.journal.>; if not, upgrade to the version that wrote it, or restore a backup"
            ) from error
        self._owner, self._turn = record.owner, record.turn
        return record

    def _check(self, record: RawRecord) -> None:
        begins = record.turn == 0 and not record.states
        follows = record.owner == self._owner and record.turn == self._turn + 1
        if not begins and not follows and self._owner:
            raise RecordError(
                f"it is number {record.turn} of {record.owner}, after number {self._turn} of {self._owner}"
            )
