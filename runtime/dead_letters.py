"""Dead letters in the hands of a person: what was set aside, whether it is decided, and the two decisions.

Over the log alone, so it works beside a running instance, which hears of a replay by itself, and with none.

What is replayed is what stands in the log, wherever it still does, and not what the letter says of it. An order goes
in again by the open way, as it came; everything else by `ORDER.again`, to the shard that had buried it (a fact that
nobody could read: to all whom it is for). Heard twice, it changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from messages.codec import FOREIGN_BYTES_MAX, encode
from messages.generated.orders.v1 import OrderCreated
from messages.record import (
    Envelope,
    Letter,
    RawRecord,
    RecordError,
    decode_letter,
    encode_letter,
    frame,
)
from runtime.letters import (
    AGAIN,
    DROPPED,
    RECORD,
    REPLAY_OF,
    REPLAYED,
    Decision,
    decision_in,
    letter_id_in,
    printable,
    store_decision,
)
from runtime.log import Entry, Log, LogError
from runtime.reading import read_to_end
from runtime.recall import INTAKE, JOURNALS, LETTERS, STREAM_PREFIX
from runtime.trace_context import checked

Message = tuple[str, bytes, Mapping[str, str]]  # Subject, payload, headers.


class LetterError(LogError):
    """A letter that cannot be had, or cannot be replayed."""


@dataclass(frozen=True, slots=True)
class Buried:
    """One letter, less its payload, and what became of it. `damage` says why the letter itself cannot be read."""

    id: str
    entry: Entry
    letter: Letter
    damage: str = ""
    decision: Decision | None = None
    decided_ms: int = 0
    replay_of: str = ""

    @property
    def shard(self) -> str:
        """As `order.1`."""
        return self.entry.subject.removeprefix(f"{LETTERS}.")

    @property
    def is_open(self) -> bool:
        return self.decision is None


async def read_letters(log: Log) -> dict[str, Buried]:
    """Every letter by its id, oldest first, however often a crash let it be stored."""
    letters: dict[str, Buried] = {}
    replays: dict[int, str] = {}

    async def on_entries(entries: Sequence[Entry]) -> None:
        for entry in entries:
            decision = decision_in(entry)
            if decision is None:
                letters.setdefault(letter_id_in(entry), _buried(entry))
            elif decision.letter_id in letters:
                known = letters[decision.letter_id]
                letters[known.id] = replace(known, decision=decision, decided_ms=entry.time_ms)
                replays[decision.replayed_as] = known.id

    await read_to_end(log, [f"{LETTERS}.>"], on_entries)
    replays.pop(0, None)
    for known in letters.values():
        if known.letter.seq in replays:
            letters[known.id] = replace(known, replay_of=replays[known.letter.seq])
    return letters


def _buried(entry: Entry) -> Buried:
    bare = replace(entry, payload=b"")
    try:
        letter = msgspec.structs.replace(decode_letter(entry.payload), payload=b"")
    except RecordError as error:
        return Buried(letter_id_in(entry), bare, Letter(0, 0, "", b"", ""), damage=str(error))
    return Buried(letter_id_in(entry), bare, letter)


async def read_whole(log: Log, buried: Buried) -> Letter:
    """The letter with its payload.

    Raises:
        LetterError: it cannot be read, or has expired since.
    """
    entry = await _entry_at(log, buried.entry.seq)
    if entry is None:
        raise LetterError(f"{buried.id} has expired meanwhile")
    if buried.damage:
        raise LetterError(f"{buried.id} holds no letter ({buried.damage}): it can only be dropped")
    return decode_letter(entry.payload)


async def replay(log: Log, buried: Buried, by: str) -> Decision:
    """Let what was set aside be heard again. If we die before the decision is stored, it is heard again once more.

    Raises:
        LetterError: there is nothing that could be heard; nothing was done.
        LogError: the log's; some of it may be heard again.
    """
    letter = await read_whole(log, buried)
    original = await _entry_at(log, letter.seq) if letter.seq else None
    seq = 0
    for subject, payload, headers in list(_messages(buried, letter, original)):
        named = {**headers, REPLAY_OF: printable(buried.id)[:128]}
        seq = await log.append(subject, payload, headers=named)
    return await _decide(log, buried, Decision(buried.id, REPLAYED, by, replayed_as=seq))


async def drop(log: Log, buried: Buried, by: str, reason: str) -> Decision:
    """Decide that what was set aside is not to be heard. It stays in the log for as long as everything does."""
    return await _decide(log, buried, Decision(buried.id, DROPPED, by, reason))


async def _decide(log: Log, buried: Buried, decision: Decision) -> Decision:
    await store_decision(log, buried.entry.subject, decision)
    return decision


def _messages(buried: Buried, letter: Letter, original: Entry | None) -> Iterator[Message]:
    """What is to be appended so that a letter is heard again."""
    subject = original.subject if original is not None else ""
    if original is not None and subject.startswith((f"{INTAKE}.", f"{AGAIN}.")):
        yield subject, original.payload, _trace(letter)
    elif original is not None and subject.startswith(f"{JOURNALS}."):
        yield from (_again(buried, fact) for fact in _facts(buried, letter, original))
    elif original is not None or not letter.type or letter.type == RECORD:
        raise LetterError(
            f"{buried.id} is about nothing that anybody hears: it can only be dropped"
        )
    elif len(letter.payload) >= FOREIGN_BYTES_MAX:
        raise LetterError(
            f"{buried.id}: only the beginning of its message is left, the rest expired"
        )
    elif letter.type == OrderCreated.__name__:
        yield f"{INTAKE}.{letter.correlation_id}", letter.payload, _trace(letter)
    else:
        yield _again(buried, letter)


def _facts(buried: Buried, letter: Letter, original: Entry) -> Iterator[Letter]:
    """The letter's fact as the record has it; all of them where the record could not be read."""
    try:
        facts = RawRecord(original.payload).facts
    except RecordError as error:
        raise LetterError(f"{buried.id}: this version cannot read it either: {error}") from error
    for index in range(len(facts)) if letter.type == RECORD else [letter.index]:
        match facts[index] if index < len(facts) else None:
            case Envelope(fact=fact, correlation_id=about, traceparent=trace):
                yield msgspec.structs.replace(
                    letter,
                    index=index,
                    type=type(fact).__name__,
                    payload=encode(fact),
                    correlation_id=about,
                    traceparent=trace,
                )
            case Letter(reason=reason):
                raise LetterError(f"{buried.id}: this version cannot read it either: {reason}")
            case _:
                raise LetterError(f"{buried.id}: the record that it names has no such fact")


def _again(buried: Buried, letter: Letter) -> Message:
    return f"{AGAIN}.{buried.shard}", frame(encode_letter(letter)), {}


def _trace(letter: Letter) -> Mapping[str, str]:
    traceparent = checked(letter.traceparent)
    return {"traceparent": traceparent} if traceparent else {}


async def _entry_at(log: Log, seq: int) -> Entry | None:
    """What stands there, if it has not expired."""
    if seq > await log.last_seq():
        return None
    async with log.read(seq - 1, [f"{STREAM_PREFIX}.>"]) as reader:
        if not reader.backlog:
            return None
        first = (await reader.take())[0]
        return first if first.seq == seq else None
