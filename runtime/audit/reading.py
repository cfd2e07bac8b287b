"""Reading the evidence that the broker has: the whole log, the snapshots, the views. Needs no instance running."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import trio

from messages.record import RecordError, decode_letter, decode_snapshot
from runtime.audit.history import History
from runtime.letters import DROPPED, RECORD, decision_in, letter_id_in
from runtime.log import DamagedError, Entry, Log
from runtime.recall import LETTERS, STREAM_PREFIX, Address

VIEWS_AT_A_TIME = 32


async def read_history(
    log: Log, counts: Mapping[str, int], *, keeps_spans: bool = False
) -> History:
    """The history of a log up to now, with what was kept of it before.

    Raises:
        BrokerLostError: the broker went away meanwhile.
    """
    history = History(
        counts,
        await read_snapshots(log, counts),
        keeps_spans=keeps_spans,
        passed_over=await read_passed_over(log),
    )
    await _read(log, f"{STREAM_PREFIX}.>", history.add_all)
    return history


async def read_passed_over(log: Log) -> set[int]:
    """Messages in journals that nobody recovers over, as a person has dropped the letters about them."""
    about: dict[str, int] = {}
    passed_over: set[int] = set()

    def take(entries: Sequence[Entry]) -> None:
        for entry in entries:
            decision = decision_in(entry)
            if decision is None:
                about[letter_id_in(entry)] = _record_of(entry)
            elif decision.decision == DROPPED:
                passed_over.add(about.get(decision.letter_id, 0))

    await _read(log, f"{LETTERS}.>", take)
    return passed_over - {0}


async def read_snapshots(log: Log, counts: Mapping[str, int]) -> dict[str, bytes]:
    """The newest snapshot of every shard, by name, and the segments that they name."""
    stored: dict[str, bytes] = {}
    for actor, count in counts.items():
        for shard in range(count):
            address = Address(actor, shard)
            await _keep(log, address.snapshot, stored)
            for name in _segments(stored.get(address.snapshot)):
                await _keep(log, address.segment(name), stored)
    return stored


async def read_views(log: Log, order_ids: Iterable[str]) -> dict[str, bytes]:
    """The stored view of each order that has one."""
    views: dict[str, bytes] = {}
    waiting = iter(list(order_ids))

    async def read() -> None:
        for order_id in waiting:
            view = await log.get_view(order_id)
            if view is not None:
                views[order_id] = view

    async with trio.open_nursery() as nursery:
        for _ in range(VIEWS_AT_A_TIME):
            nursery.start_soon(read)
    return views


async def _read(log: Log, subject: str, take: Callable[[Sequence[Entry]], None]) -> None:
    """Pass on what the log has now, a batch at a time."""
    async with log.read(0, [subject]) as reader:
        left = reader.backlog
        while left > 0:
            entries = (await reader.take())[:left]
            left -= len(entries)
            take(entries)


def _record_of(entry: Entry) -> int:
    """The record that a letter is about as a whole; 0 where it is about none."""
    try:
        letter = decode_letter(entry.payload)
    except RecordError:
        return 0
    return letter.seq if letter.type == RECORD else 0


async def _keep(log: Log, name: str, stored: dict[str, bytes]) -> None:
    try:
        kept = await log.get_snapshot(name)
    except DamagedError:
        kept = b""  # The auditor finds it unreadable, and says so.
    if kept is not None:
        stored[name] = kept


def _segments(snapshot: bytes | None) -> Sequence[str]:
    try:
        return [ref.name for ref in decode_snapshot(snapshot).segments] if snapshot else []
    except RecordError:
        return []
