"""A dead letter in words: for JSON, and for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from messages.codec import DecodeError, decode, message_class
from messages.record import Letter
from runtime.commands.output import moment, plain
from runtime.dead_letters import Buried
from runtime.letters import REPLAYED, WAKING, Decision
from runtime.trace_context import trace_id_of

REASON_CHARS = 100  # Of a line in the list; `orders dead show` prints all of it.

Json = dict[str, Any]


def summary(buried: Buried) -> Json:
    """A letter without its body, ready for JSON."""
    letter, decision = buried.letter, buried.decision
    return {
        "id": buried.id,
        "shard": buried.shard,
        "subject": buried.entry.subject,
        "seq": buried.entry.seq,
        "time": moment(buried.entry.time_ms),
        "type": letter.type or None,
        "order_id": letter.correlation_id or None,
        "reason": letter.reason or buried.damage,
        "attempts": letter.attempts,
        "retryable": letter.retryable,
        "about": about(letter),
        "trace_id": trace_id_of(letter.traceparent),
        "replay_of": buried.replay_of or None,
        "decision": None
        if decision is None
        else {
            "decision": decision.decision,
            "by": decision.by,
            "time": moment(buried.decided_ms),
            "reason": decision.reason if decision.decision != REPLAYED else None,
            "replayed_as": decision.replayed_as or None,
        },
    }


def about(letter: Letter) -> Json | None:
    """Where the message stands that the letter is about; None for what never was in the log."""
    if not letter.seq:
        return None
    return {"seq": letter.seq, "index": letter.index, "subject": letter.subject or None}


def body_of(letter: Letter) -> Mapping[str, Any] | str | None:
    """What the letter is about, where it can be read at all."""
    if letter.type in WAKING:
        return letter.payload.decode(errors="replace")
    try:
        return plain(decode(message_class(letter.type), letter.payload))
    except DecodeError:
        return None


def render_letters(letters: Sequence[Buried]) -> Table:
    """Letters for people."""
    table = Table("id", "time", "type", "order", "reason", "")
    for buried in letters:
        letter = buried.letter
        reason = letter.reason or buried.damage
        cut = reason if len(reason) <= REASON_CHARS else f"{reason[: REASON_CHARS - 3]}..."
        table.add_row(
            Text(buried.id, overflow="fold"),
            moment(buried.entry.time_ms)[:19],
            Text(letter.type),
            Text(letter.correlation_id[:40]),
            Text(cut),
            Text(decided(buried)),
        )
    return table


def decided(buried: Buried) -> str:
    """Where a letter stands."""
    if buried.decision is not None:
        at = moment(buried.decided_ms)[:19]
        return f"{in_words(buried.decision)}, by {buried.decision.by} at {at}"
    return f"open, after a replay of {buried.replay_of}" if buried.replay_of else "open"


def in_words(decision: Decision) -> str:
    """What was decided."""
    if decision.decision == REPLAYED:
        return f"replayed as message {decision.replayed_as}"
    return f"{decision.decision}: {decision.reason}"


def lines(name: str, value: object) -> list[tuple[Text, Text]]:
    """A value as rows of two; an object is a row for each of its fields."""
    if isinstance(value, dict):
        rows = [(f"{name}.{inner}", each) for inner, each in value.items()]
        return [line for inner, each in rows for line in lines(inner, each)]
    return [(Text(name, style="bold"), Text("-" if value is None else str(value), overflow="fold"))]
