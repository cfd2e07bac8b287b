"""Reading the evidence that the broker has: the whole log, the snapshots, the views. Needs no instance running."""

from collections.abc import Iterable, Mapping, Sequence

import trio

from messages.record import RecordError, decode_snapshot
from runtime.audit.history import History
from runtime.log import DamagedError, Entry, Log
from runtime.recall import STREAM_PREFIX, Address

VIEWS_AT_A_TIME = 32


async def read_history(
    log: Log, counts: Mapping[str, int], *, keeps_spans: bool = False
) -> History:
    """The history of a log up to now, with what was kept of it before.

    Raises:
        BrokerLostError: the broker went away meanwhile.
    """
    history = History(counts, await read_snapshots(log, counts), keeps_spans=keeps_spans)
    async with log.read(0, [f"{STREAM_PREFIX}.>"]) as reader:
        left = reader.backlog
        while left > 0:
            entries: Sequence[Entry] = (await reader.take())[:left]
            left -= len(entries)
            history.add_all(entries)
    return history


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
