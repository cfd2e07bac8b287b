"""A run, told line by line: faults as they came, what reached the log, what clients heard, what money moved."""

from collections.abc import Iterator

import msgspec

from actors import ACTORS, Place, Terms
from messages.record import Change, Envelope, Letter, RawRecord
from runtime.audit.journal import Attempt
from runtime.explore.play import Played
from runtime.log import Entry
from runtime.memory import EPOCH_MS
from runtime.recall import JOURNALS


def tell(played: Played) -> Iterator[str]:
    """Every line of a run, as its own clocks have it: what is in the log goes by the broker's."""
    lines = [
        *((at_s, f"FAULT    {fault}") for at_s, fault in played.fired),
        *((_seconds(entry.time_ms), f"LOG      {_entry(entry)}") for entry in played.store.entries),
        *((_seconds(one.ended_ms), f"CLIENT   {_attempt(one)}") for one in played.journal),
    ]
    for at_s, line in sorted(lines, key=lambda line: line[0]):
        yield f"{at_s:10.3f} s  {line}"
    for money in played.ledger:
        yield f"LEDGER   {money.kind} {money.reference} {money.amount_minor} {money.currency}"
    for surprise in played.surprises:
        yield f"SURPRISE {surprise}"


def _entry(entry: Entry) -> str:
    if not entry.subject.startswith(f"{JOURNALS}."):
        reason = entry.headers.get("Orders-Reason", "")
        return f"{entry.seq} {entry.subject} {reason}".rstrip()
    record = RawRecord(entry.payload)
    actor, _, shard = entry.subject.removeprefix(f"{JOURNALS}.").partition(".")
    words = [f"{entry.seq} {actor}.{shard}", f"by {record.owner} ({record.turn})"]
    words += [f"read {record.cursor.seq}" + (f"+{s}" if (s := record.cursor.skip) else "")]
    words += [_change(actor, change) for change in record.states]
    words += [_fact(fact) for fact in record.facts]
    words += [f"buries {letter.type}: {letter.reason}" for letter in record.letters]
    return "; ".join(words)


def _change(actor: str, change: Change) -> str:
    if change.state is None:
        return f"forgets {change.key}"
    states = ACTORS[actor](Terms(), Place(0, 1)).states
    state = msgspec.msgpack.decode(change.state, type=states)
    stands = getattr(state, "status", None) or getattr(state, "doing", None) or ""
    if hasattr(state, "on_hand"):
        stands = f"{state.on_hand} on hand, {state.reserved} reserved, {state.sold} sold"
    return f"{change.key} {stands}".rstrip()


def _fact(fact: Envelope | Letter) -> str:
    if isinstance(fact, Letter):
        return f"says something unreadable ({fact.type})"
    return f"says {type(fact.fact).__name__} {fact.correlation_id}"


def _attempt(one: Attempt) -> str:
    about = one.order_id or one.sku
    return f"{one.op} {about}: {one.code} {one.outcome} {one.status}".rstrip()


def _seconds(time_ms: float) -> float:
    return (time_ms - EPOCH_MS) / 1000
