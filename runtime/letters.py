"""Dead letters: facts set aside with their reason, stored before the record that moves past them.

A crash in between stores a letter twice under the same id; whoever lists them shows it once. What becomes of a letter
is stored beside it, on the same subject: a decision, with the letter's id, and no payload. Nothing is ever deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import trio
from betterproto import Message

from actors.actor import CallAnswered, Due, Heard
from messages.codec import DecodeError, encode
from messages.record import Letter, encode_letter
from runtime.log import Entry, Log, LogError
from runtime.mailbox import Delivery, Item
from runtime.recall import STREAM_PREFIX, Address

AGAIN = f"{STREAM_PREFIX}.again"
"""Where a letter is put that a shard is to hear again: framed like a record, on the shard's own subject."""
RECORD = "Record"  # The type of a letter about a record that could not be read at all.
WAKING = frozenset({Due.__name__, CallAnswered.__name__})
"""The shard told itself these. To hear them again is to look at their key again: the call is made anew."""

REPLAYED, DROPPED = "replayed", "dropped"

LETTER_ID = "Orders-Letter-Id"
TYPE = "Orders-Type"
REASON = "Orders-Reason"
DECISION = "Orders-Decision"
DECIDED_BY = "Orders-Decided-By"
REPLAYED_AS = "Orders-Replayed-As"
REPLAY_OF = "Orders-Replay-Of"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a letter: `replayed` (as the message at `replayed_as`) or `dropped` (for a `reason`)."""

    letter_id: str
    decision: str
    by: str
    reason: str = ""
    replayed_as: int = 0


def letter_about(item: Item, heard: Heard, traceparent: str, reason: str) -> Letter:
    """A letter for something that was heard. What was not in the log has `seq` 0."""
    delivered = item if isinstance(item, Delivery) else None
    return Letter(
        seq=delivered.seq if delivered else 0,
        index=delivered.index if delivered else 0,
        type=type(heard).__name__,
        payload=encode(heard) if isinstance(heard, Message) else msgspec.json.encode(heard),
        reason=reason,
        correlation_id=order_of(heard),
        traceparent=traceparent,
    )


async def store_letter(log: Log, address: Address, letter: Letter, burial: str) -> str:
    """Append one letter; its id is the position of what it is about, or else of its `burial`. Returns the id."""
    place = f"{letter.seq}.{letter.index}" if letter.seq else burial
    letter_id = f"{address}.{place}"[:128]
    headers = {
        LETTER_ID: letter_id,
        TYPE: printable(letter.type[:100]),
        REASON: printable(letter.reason),
    }
    await log.append(address.letters, encode_letter(letter), headers=headers)
    return letter_id


async def store_letters(log: Log, address: Address, letters: Sequence[Letter], group: str) -> None:
    """Append the letters of one group at the same time, since the broker syncs its disk for many as fast as for one.

    Raises:
        LogError: one of them was refused or lost; the others may be stored.
    """
    errors: list[LogError] = []

    async def store(letter: Letter, burial: str) -> None:
        try:
            await store_letter(log, address, letter, burial)
        except LogError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for number, letter in enumerate(letters):
            nursery.start_soon(store, letter, f"{group}.{number}")
    if errors:
        raise errors[0]


async def store_decision(log: Log, subject: str, decision: Decision) -> int:
    """Append what was decided beside the letter that stands on `subject`."""
    headers = {
        LETTER_ID: decision.letter_id,
        DECISION: decision.decision,
        DECIDED_BY: printable(decision.by),
        REASON: printable(decision.reason),
        REPLAYED_AS: str(decision.replayed_as),
    }
    return await log.append(subject, b"", headers=headers)


def decision_in(entry: Entry) -> Decision | None:
    """The decision that an entry beside dead letters holds; None where it is a letter, or something else."""
    headers = entry.headers
    if DECISION not in headers:
        return None
    replayed_as = headers.get(REPLAYED_AS, "")
    return Decision(
        headers.get(LETTER_ID, ""),
        headers[DECISION],
        headers.get(DECIDED_BY, ""),
        headers.get(REASON, ""),
        int(replayed_as) if replayed_as.isascii() and replayed_as.isdecimal() else 0,
    )


def letter_id_in(entry: Entry) -> str:
    """The id of the letter that an entry holds."""
    return entry.headers.get(LETTER_ID) or f"{entry.subject}.{entry.seq}"


def order_of(heard: Heard) -> str:
    """The order that something is about; empty where it is about none (a count of stock)."""
    about: str = getattr(heard, "order_id", "") or getattr(heard, "key", "")
    return about.removeprefix("order:")


class _Keyed(msgspec.Struct):
    key: str


def key_in(letter: Letter) -> str:
    """The key of the state that a deadline or a call's answer was about.

    Raises:
        DecodeError: the letter does not say.
    """
    try:
        return msgspec.json.decode(letter.payload, type=_Keyed).key
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"no {letter.type}: {error}") from error


def printable(text: str) -> str:
    """One line of ASCII, at most 500 characters, as a header allows."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:500]) or "?"
