"""The book of owners: who wrote which journal, one after another, and how far each had read (I5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from messages.record import Change, Cursor, RawRecord
from messages.routing import shard_of
from runtime.audit.report import Finding
from runtime.log import Entry
from runtime.recall import Address


@dataclass(slots=True)
class _Tenure:
    """One owner's time with a shard: it begins with turn 0, and counts every record."""

    owner: str = ""
    turn: int = -1
    cursor: Cursor = Cursor()  # noqa: RUF009  # Frozen.
    is_known: bool = False


class Owners:
    """Takes every journal's records. `counts` are the shards of each actor, where known."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.findings: list[Finding] = []
        self.take_overs = 0
        self._counts = counts
        self._tenures: dict[Address, _Tenure] = {}

    def take(
        self, address: Address, entry: Entry, record: RawRecord, states: Sequence[Change]
    ) -> None:
        tenure = self._tenures.setdefault(address, _Tenure())
        if record.turn == 0:
            self.take_overs += 1
            if states or record.facts:
                self._note(address, "a take-over changed something", entry)
        elif tenure.is_known:
            if fault := _find_fault(tenure, record, entry):
                self._note(address, fault, entry)
            tenure.cursor = max(tenure.cursor, record.cursor)
        else:
            tenure.cursor = record.cursor  # RETENTION has taken how this began.
        tenure.owner, tenure.turn, tenure.is_known = record.owner, record.turn, True
        if count := self._counts.get(address.actor):
            self._check_keys(address, entry, states, count)

    def _check_keys(
        self, address: Address, entry: Entry, states: Sequence[Change], count: int
    ) -> None:
        for change in states:
            kind, _, name = change.key.rpartition(":")
            if kind != "order" and shard_of(name, count) != address.shard:
                self._note(address, f"{change.key} belongs to shard {shard_of(name, count)}", entry)

    def _note(self, address: Address, fault: str, entry: Entry) -> None:
        self.findings.append(Finding("I5", str(address), fault, entry.seq))


def _find_fault(tenure: _Tenure, record: RawRecord, entry: Entry) -> str:
    if record.owner != tenure.owner:
        return (
            f"{record.owner} wrote turn {record.turn} while {tenure.owner} owned the shard:"
            " a fenced owner's record"
        )
    if record.turn != tenure.turn + 1:
        return f"turn {record.turn} of {record.owner} follows its turn {tenure.turn}"
    if record.cursor < tenure.cursor:
        return f"it had read up to {_place(tenure.cursor)}, and now up to {_place(record.cursor)}"
    if record.cursor.seq >= entry.seq:
        return f"it claims to have read up to {_place(record.cursor)}, which is not before itself"
    return ""


def _place(cursor: Cursor) -> str:
    return f"{cursor.seq}+{cursor.skip}" if cursor.skip else str(cursor.seq)
