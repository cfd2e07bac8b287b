"""Reading the evidence out of a log: all of it, with its snapshots, and without what a person has dropped."""

from typing import Any

import pytest
from trio.testing import MockClock

from messages.record import Cursor, Letter, Record, encode_letter, encode_record
from runtime.audit import audit
from runtime.audit.reading import read_history, read_passed_over, read_views
from runtime.letters import DECISION, DROPPED, LETTER_ID, RECORD
from runtime.memory import EPOCH_MS, MemoryLog, MemoryStore
from runtime.recall import Address


@pytest.fixture
def log(evidence: Any) -> MemoryLog:
    """The log of a finished run, to be read and appended to."""
    store = MemoryStore(now_ms=lambda: EPOCH_MS + 60_000)
    for entry in evidence.entries:
        store.append(entry.subject, entry.payload, None, entry.headers)
    store.snapshots.update(evidence.snapshots)
    store.views.update(evidence.views)
    return MemoryLog(store)


async def test_all_that_the_broker_has_is_read(
    evidence: Any, log: MemoryLog, autojump_clock: MockClock
) -> None:
    history = await read_history(log, evidence.counts)
    assert history.entries == len(evidence.entries)
    assert history.saved.is_current
    views = await read_views(log, [*history.orders.by_id, "ghost"])
    assert views == evidence.views


async def test_a_damaged_snapshot_is_the_auditors_to_tell(
    evidence: Any, log: MemoryLog, autojump_clock: MockClock
) -> None:
    log.store.snapshots["order-0"] = b"ORD"
    history = await read_history(log, evidence.counts)
    assert any("cannot be read" in one.seen for one in history.saved.findings)


async def test_a_strangers_record_that_a_person_has_dropped_is_passed_over(
    evidence: Any, log: MemoryLog, autojump_clock: MockClock
) -> None:
    address = Address("order", 0)
    seq = await log.append(address.journal, encode_record(Record("stranger", 7, Cursor())))
    assert audit(await read_history(log, evidence.counts)).failed == ("I5",)
    letter = encode_letter(Letter(seq, 0, RECORD, b"", "it is nobody's"))
    await log.append(address.letters, letter, headers={LETTER_ID: "l1"})
    assert await read_passed_over(log) == set(), "nobody has decided yet"
    dropped = {LETTER_ID: "l1", DECISION: DROPPED}
    await log.append(address.letters, b"", headers=dropped)
    assert await read_passed_over(log) == {seq}
    assert audit(await read_history(log, evidence.counts)).failed == ()
