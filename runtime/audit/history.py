"""The history: all that the log says, taken in once and in order, each part by the book that keeps it.

What can be judged only at the moment (stock at every record, one owner after another) is judged here and kept as a
finding; the checks judge the rest at the end.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from messages.record import RawRecord, RecordError, decode_letter
from runtime.audit.causes import Causes
from runtime.audit.orders import Orders
from runtime.audit.owners import Owners
from runtime.audit.report import Finding
from runtime.audit.saved import Saved
from runtime.audit.shelves import Shelves
from runtime.audit.trails import Trails
from runtime.log import Entry
from runtime.recall import INTAKE, JOURNALS, LETTERS, Address

_JOURNAL = f"{JOURNALS}."
_INTAKE = f"{INTAKE}."
_LETTERS = f"{LETTERS}."


class History:
    """Add every entry of the log, oldest first; then `audit` it.

    `counts` are the shards of each actor, where known: then keys in the wrong shard are seen. `snapshots` are those of
    the snapshot store, by name and read before the log is, with the segments that they name. `keeps_spans` is needed to
    compare traces, and takes memory. `passed_over` are strangers' messages in journals that a person has dropped.
    """

    def __init__(
        self,
        counts: Mapping[str, int] | None = None,
        snapshots: Mapping[str, bytes] | None = None,
        *,
        keeps_spans: bool = False,
        passed_over: Collection[int] = (),
    ) -> None:
        self.orders = Orders()
        self.shelves = Shelves()
        self.owners = Owners(counts or {})
        self.causes = Causes()
        self.saved = Saved(snapshots or {})
        self.trails = Trails(keeps_spans=keeps_spans)
        self._passed_over = passed_over
        self.unreadable: list[Finding] = []
        self.entries = self.records = 0
        self.first_seq = self.last_seq = 0
        self.first_ms = self.last_ms = 0

    def add_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take in the next entry, whatever its subject."""
        if not self.entries:
            self.first_seq, self.first_ms = entry.seq, entry.time_ms
        self.entries += 1
        self.last_seq, self.last_ms = entry.seq, entry.time_ms
        subject = entry.subject
        if subject.startswith(_JOURNAL):
            self._add_record(entry)
        elif subject.startswith(_INTAKE):
            self.causes.take_intake(entry, subject.removeprefix(_INTAKE))
        elif subject.startswith(_LETTERS):
            self._add_letter(entry)
        else:
            self.causes.take_foreign(entry)

    @property
    def is_whole(self) -> bool:
        """False where RETENTION has taken the beginning of the log."""
        return self.first_seq <= 1

    def _add_letter(self, entry: Entry) -> None:
        with suppress(RecordError):  # A stranger's; nobody believes it either.
            letter = decode_letter(entry.payload)
            if letter.seq:
                self.causes.take_letters([letter])

    def _add_record(self, entry: Entry) -> None:
        if entry.seq in self._passed_over:
            return
        actor, _, number = entry.subject.removeprefix(_JOURNAL).partition(".")
        try:
            address = Address(actor, int(number))
            record = RawRecord(entry.payload)
        except (RecordError, ValueError) as error:
            self.unreadable.append(Finding("I5", entry.subject, f"{error}", entry.seq))
            return
        self.records += 1
        states = record.states
        self.owners.take(address, entry, record, states)
        match actor:
            case "order":
                self.orders.take(address, entry, states)
            case "inventory":
                self.shelves.take(address, entry, states)
        facts = record.facts
        self.causes.take_record(address, entry, facts)
        self.causes.take_letters(record.letters)
        self.trails.take(entry, states, facts)
        self.saved.take(address, entry, states)
