"""Strangers' messages in a journal: set aside with their reason, and passed over once a person has dropped the letter.

Until then nobody recovers over them: what looks like a stranger's may be a record of ours that was damaged, or one from
the other side of a gap, and passing over that would lose what it says.
"""

from collections.abc import Callable
from contextlib import suppress

from actors.actor import Actor
from messages.codec import FOREIGN_BYTES_MAX
from messages.record import Letter, RecordError, decode_letter
from runtime.letters import DROPPED, RECORD, decision_in, letter_id_in, store_letter
from runtime.log import Entry, Log
from runtime.recall import LETTERS, Address, Memory, recall
from runtime.succession import StrangeRecordError, Succession

BurialOf = Callable[[Entry, str], tuple[Address, Letter]]
"""Who sets aside what nobody can read, for this reason, and by which letter."""


async def recall_own(
    log: Log, address: Address, actor: Actor, at_least: int = 0, *, with_archive: bool = True
) -> Memory:
    """Recall as `recall` does, over those strangers' messages that a person has dropped. Raises like it."""
    strange: set[int] = set()
    while True:
        try:
            return await recall(
                log, address, actor, at_least, with_archive=with_archive, strange=strange
            )
        except StrangeRecordError as error:
            if not await _is_dropped(log, error.entry):
                raise
            strange.add(error.entry.seq)


async def owners_since(log: Log, address: Address, ours: int, newest: int) -> list[str]:
    """Who wrote what follows our record at `ours` in the journal, up to `newest`, less what is not to be believed."""
    owners: list[str] = []
    succession, seq = Succession(), 0
    async with log.read(ours - 1, [address.journal]) as reader:
        while seq < newest:
            for entry in await reader.take():
                seq = entry.seq
                with suppress(StrangeRecordError):
                    owners.append(succession.read(entry).owner)
    return owners


async def set_aside(
    log: Log, address: Address, error: StrangeRecordError, burial_of: BurialOf
) -> str:
    """Store the letter that a person has to decide about, unless it is there; returns its id.

    What nobody can read has an undertaker, who may be waiting for this very shard to start: its letter is stored in its
    name, under the id that it gives it too.
    """
    entry = error.entry
    for letter_id in await _letters_about(log, entry):
        return letter_id
    if error.is_sound:
        payload = entry.payload[:FOREIGN_BYTES_MAX]
        letter = Letter(entry.seq, 0, RECORD, payload, error.why, subject=entry.subject)
    else:
        address, letter = burial_of(entry, error.why)
    return await store_letter(log, address, letter, "")


async def _is_dropped(log: Log, strange: Entry) -> bool:
    """Whether a person has decided that a message is nothing to recover over."""
    return DROPPED in (await _letters_about(log, strange)).values()


async def _letters_about(log: Log, strange: Entry) -> dict[str, str]:
    """The ids of the letters about a message of a journal, each with what was decided, if anything was."""
    found: dict[str, str] = {}
    async with log.read(strange.seq, [f"{LETTERS}.>"]) as reader:
        left = reader.backlog
        while left > 0:
            entries = (await reader.take())[:left]
            left -= len(entries)
            for entry in entries:
                decision = decision_in(entry)
                if decision is not None and decision.letter_id in found:
                    found[decision.letter_id] = decision.decision
                elif decision is None and _is_about(entry, strange):
                    found.setdefault(letter_id_in(entry), "")
    return found


def _is_about(entry: Entry, strange: Entry) -> bool:
    try:
        letter = decode_letter(entry.payload)
    except RecordError:
        return False
    return (letter.type, letter.seq) == (RECORD, strange.seq)
