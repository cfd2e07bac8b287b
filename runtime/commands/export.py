"""Everything the broker has, as JSON lines, with no instance running.

Each export ends where the log ended when it began. Memory does not grow with the log: facts and finished orders are
written as they are met, only what is still open (and the ids of dead letters) is kept in between.
"""

from base64 import b64encode
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any

import msgspec

from actors.actor import State
from messages.record import (
    Change,
    Envelope,
    Letter,
    RawRecord,
    RecordError,
    decode_letter,
    decode_snapshot,
)
from runtime.addressing import read_intake
from runtime.commands.dead_words import body_of, summary
from runtime.commands.output import moment, plain, write_lines
from runtime.config_variables import Config
from runtime.dead_letters import read_letters
from runtime.desk import read_stock
from runtime.letters import decision_in, letter_id_in
from runtime.log import DamagedError, Entry, Log
from runtime.reading import actor_at, open_broker, public_view, read_to_end
from runtime.recall import INTAKE, JOURNALS, LETTERS, Address
from runtime.trace_context import trace_id_of

Json = Mapping[str, Any]
Write = Callable[[Iterable[Json]], Awaitable[None]]


# --- events ---


async def export_events(config: Config) -> None:
    """Write every fact to standard output.

    Raises:
        DamagedError: something could not be read; all the rest has been written. The other exports likewise.
    """
    async with open_broker(config) as log:
        await write_events(log, write_lines)


async def write_events(log: Log, write: Write) -> None:
    """Every fact in the log, in its order: those of the journals, and the orders that came in by the open way."""
    damage = _Damage()

    async def on_entries(entries: Sequence[Entry]) -> None:
        await write([event for entry in entries for event in damage.guard(events_of, entry)])

    await read_to_end(log, [f"{JOURNALS}.>", f"{INTAKE}.>"], on_entries)
    damage.tell()


def events_of(entry: Entry) -> Iterator[Json]:
    """The facts in one message of the log.

    Raises:
        RecordError: it is a record, and damaged.
    """
    if entry.subject.startswith(f"{INTAKE}."):
        order_id = entry.subject.removeprefix(f"{INTAKE}.")
        yield _event(entry, 0, read_intake(entry, order_id))
        return
    for index, content in enumerate(RawRecord(entry.payload).facts):
        yield _event(entry, index, content)


def _event(entry: Entry, index: int, content: Envelope | Letter) -> Json:
    event = {
        **_place(entry),
        "index": index,
        "type": content.type if isinstance(content, Letter) else type(content.fact).__name__,
        "order_id": content.correlation_id or None,
        "trace_id": trace_id_of(content.traceparent),
        "cause": None,
    }
    if isinstance(content, Letter):
        return {**event, "body": None, "unreadable": content.reason}
    if content.cause_seq:
        event["cause"] = {"seq": content.cause_seq, "index": content.cause_index}
    return {**event, "body": plain(content.fact)}


# --- orders ---


async def export_orders(config: Config) -> None:
    async with open_broker(config) as log:
        await write_orders(log, config.order_shards, write_lines)


async def write_orders(log: Log, shards: int, write: Write) -> None:
    """The newest public view of every order, from the journals: finished ones as they end, then those still open."""
    damage = _Damage()
    for shard in range(shards):
        await _write_orders_of(log, Address("order", shard), shards, write, damage)
    damage.tell()


async def _write_orders_of(
    log: Log, address: Address, shards: int, write: Write, damage: "_Damage"
) -> None:
    actor = actor_at(address, shards)
    read_state = msgspec.msgpack.Decoder(actor.states).decode
    still_open: dict[str, tuple[State, str]] = {}

    def finished(changes: Iterable[Change]) -> Iterator[Json]:
        for change in changes:
            assert change.state is not None  # Orders are archived, never forgotten.
            state = read_state(change.state)
            if state.remains is None:
                still_open[change.key] = state, change.traceparent
            else:
                still_open.pop(change.key, None)
                yield public_view(actor, state, change.traceparent)

    def finished_in(entry: Entry) -> Iterator[Json]:
        yield from finished(RawRecord(entry.payload).states)

    async def on_entries(entries: Sequence[Entry]) -> None:
        await write([view for entry in entries for view in damage.guard(finished_in, entry)])

    # An order may be open for longer than the log keeps the record of its last change.
    snapshot = await log.get_snapshot(address.snapshot)
    if snapshot is not None:
        await write(list(finished(decode_snapshot(snapshot).states)))
    await read_to_end(log, [address.journal], on_entries)
    await write(public_view(actor, *known) for known in still_open.values())


# --- stock ---


async def export_stock(config: Config) -> None:
    async with open_broker(config) as log:
        levels = await read_stock(log, config.inventory_shards)
    await write_lines({"sku": sku, **level} for sku, level in levels.items())


# --- dead letters ---


async def export_letters(config: Config) -> None:
    async with open_broker(config) as log:
        await write_letters(log, write_lines)


async def write_letters(log: Log, write: Write) -> None:
    """Every dead letter once, however often a crash let it be stored, with what was decided about it."""
    damage = _Damage()
    letters = await read_letters(log)
    left = set(letters)

    def new_letter(entry: Entry) -> Iterator[Json]:
        letter_id = letter_id_in(entry)
        if letter_id in left and decision_in(entry) is None:
            letter = decode_letter(entry.payload)
            left.remove(letter_id)
            yield {
                **summary(letters[letter_id]),
                "body": body_of(letter),
                "payload": b64encode(letter.payload).decode(),
            }

    async def on_entries(entries: Sequence[Entry]) -> None:
        await write([letter for entry in entries for letter in damage.guard(new_letter, entry)])

    await read_to_end(log, [f"{LETTERS}.>"], on_entries)
    damage.tell()


# --- common ---


class _Damage:
    """What could not be read: a line each in the output, and at the end an error."""

    def __init__(self) -> None:
        self._count = 0

    def guard(self, read: Callable[[Entry], Iterator[Json]], entry: Entry) -> Iterator[Json]:
        try:
            yield from read(entry)
        except (RecordError, msgspec.MsgspecError) as error:
            self._count += 1
            yield {**_place(entry), "unreadable": str(error)}

    def tell(self) -> None:
        if self._count:
            raise DamagedError(
                f'{self._count} messages of the log could not be read: look for "unreadable" in the'
                " output. A backup, or a newer program, may have them"
            )


def _place(entry: Entry) -> dict[str, Any]:
    return {"seq": entry.seq, "subject": entry.subject, "time": moment(entry.time_ms)}
