"""A finished run of the real actors, and one thing at a time made wrong in it."""

from collections.abc import Callable
from typing import Any

import pytest

from messages.record import Envelope, RawRecord, Record, encode_record
from runtime.audit import History, Report, audit
from runtime.log import Entry


class Evidence:
    """All that a run has left, ready to be tampered with."""

    def __init__(self, shop: Any) -> None:
        self.counts = shop.counts
        self.entries: list[Entry] = list(shop.store.entries)
        self.snapshots = dict(shop.store.snapshots)
        self.views = dict(shop.store.views)
        self.ledger = list(shop.ledger.lines)
        self.given: dict[str, Any] = {}

    def audit(self, **given: Any) -> Report:
        history = History(self.counts, self.snapshots)
        history.add_all(self.entries)
        sources = {"ledger": self.ledger, "views": self.views, **self.given, **given}
        return audit(history, **sources)

    def rewrite(self, actor: str, change: Callable[[Entry, Record], Record | None]) -> int:
        """Let every record of an actor be what `change` makes of it; the number of those changed."""
        changed = 0
        for at, entry in enumerate(self.entries):
            if not entry.subject.startswith(f"ORDER.journal.{actor}."):
                continue
            record = record_of(entry.payload)
            made = change(entry, record)
            if made is None or made == record:
                continue
            changed += 1
            self.entries[at] = Entry(
                entry.seq, entry.subject, encode_record(made), entry.time_ms, entry.headers
            )
        return changed


def record_of(payload: bytes) -> Record:
    raw = RawRecord(payload)
    facts = [sent for sent in raw.facts if isinstance(sent, Envelope)]
    return Record(raw.owner, raw.turn, raw.cursor, raw.states, facts, raw.letters)


@pytest.fixture
async def evidence(shop: Any, autojump_clock: object) -> Evidence:
    """What is left of a shop that confirmed, rejected, cancelled and refunded orders, and was stopped in order."""
    await shop.place("plain", a=2, b=1)
    await shop.place("short", c=5)
    await shop.place("declined", "tok_declined", b=1)
    await shop.place("slow", "tok_slow", a=1)
    await shop.place("regretted", "tok_slow", a=1)
    await shop.wait_status("regretted", "reserved")
    await shop.cancel("regretted")
    for order_id in ("plain", "short", "declined", "slow", "regretted"):
        await shop.wait_status(order_id, "confirmed", "rejected", "cancelled")
    await shop.process.stop()
    return Evidence(shop)
