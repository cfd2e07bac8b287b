"""The book of snapshots: each one held, at the record that it was taken after, to what the journal says (I6)."""

from collections.abc import Mapping, Sequence

import msgspec

from actors import ACTORS, Place, Terms
from messages.record import Change, RecordError, Snapshot, decode_snapshot
from runtime.archive import Archive, Segment, name_of
from runtime.audit.report import Finding
from runtime.log import Entry
from runtime.recall import Address


class Saved:
    """Takes every journal's records. `snapshots` and the segments that they name are by name, as they are stored."""

    def __init__(self, snapshots: Mapping[str, bytes]) -> None:
        self.findings: list[Finding] = []
        self.compared = 0
        self.unseen: set[str] = set()
        """Snapshots taken after a record that is not in the log (any more)."""
        self._stored = snapshots
        self._newest: dict[str, int] = {}
        self._due: dict[str, Snapshot] = {}
        self._live: dict[str, dict[str, Change]] = {}
        for name, packed in snapshots.items():
            if "/" in name:
                continue  # A segment.
            try:
                self._due[name] = decode_snapshot(packed)
            except RecordError as error:
                self.findings.append(Finding("I6", name, f"the snapshot cannot be read: {error}"))
        self.unseen.update(self._due)
        self._taken_at = {name: snapshot.seq for name, snapshot in self._due.items()}

    @property
    def is_current(self) -> bool:
        """Whether every shard has left a snapshot after its last record, as it does when it is stopped in order."""
        return all(self._taken_at.get(name) == seq for name, seq in self._newest.items())

    def take(self, address: Address, entry: Entry, states: Sequence[Change]) -> None:
        self._newest[address.snapshot] = entry.seq
        snapshot = self._due.get(address.snapshot)
        if snapshot is None or entry.seq > snapshot.seq:
            return
        live = self._live.setdefault(address.snapshot, {})
        for change in states:
            live[change.key] = change
        if entry.seq == snapshot.seq:
            self._compare(address, entry, snapshot, live)
            del self._due[address.snapshot], self._live[address.snapshot]
            self.unseen.discard(address.snapshot)

    def _compare(
        self, address: Address, entry: Entry, snapshot: Snapshot, changed: dict[str, Change]
    ) -> None:
        """Recalled with the snapshot, a shard must know what it knows when recalled without."""
        self.compared += 1
        decode = msgspec.msgpack.Decoder(
            ACTORS[address.actor](Terms(), Place(address.shard, 1)).states
        ).decode
        archive = self._archive(address, snapshot, entry)
        kept = {change.key: change for change in snapshot.states}
        for key, change in changed.items():
            state = decode(change.state) if change.state is not None else None
            if state is not None and state.remains is not None:
                if archive.get(key) != state.remains:
                    self._note(address, snapshot, f"{key} is not archived as it ended")
            elif state is not None and key not in kept:
                self._note(address, snapshot, f"{key} is missing")
        for key, change in kept.items():
            known = changed.get(key)
            if known is None:
                continue  # Older than the log.
            same_trace = change.traceparent == known.traceparent
            same_state = change.state == known.state or (
                known.state is not None
                and change.state is not None
                and decode(change.state) == decode(known.state)
            )
            if not (same_trace and same_state):
                self._note(address, snapshot, f"{key} differs from what the journal says")

    def _archive(self, address: Address, snapshot: Snapshot, entry: Entry) -> Archive:
        if snapshot.whole_archive:
            return Archive.from_rows(snapshot.whole_archive)
        segments: list[Segment] = []
        for ref in snapshot.segments:
            packed = self._stored.get(address.segment(ref.name))
            if packed is not None and name_of(packed) == ref.name:
                segments.append(Segment(packed, ref, is_stored=True))
            elif packed is not None or ref.expires_ms > entry.time_ms:
                how = "damaged" if packed else "gone"
                self._note(address, snapshot, f"segment {ref.name} of the archive is {how}")
        return Archive(segments)

    def _note(self, address: Address, snapshot: Snapshot, fault: str) -> None:
        seen = f"{fault} (in the snapshot)"
        self.findings.append(Finding("I6", str(address), seen, snapshot.seq))
