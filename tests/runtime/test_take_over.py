"""A newer instance takes the shards over from an older one that is busy."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock

from messages.record import Cursor, Record, encode_record
from messages.routing import shard_of
from runtime.log import FencedError, SupersededError
from runtime.memory import MemoryLog
from runtime.recall import Address
from runtime.shard import FENCED_TAKE_OVERS
from runtime.succession import owner_name

T = TypeVar("T")


async def test_a_newcomer_takes_over_from_an_owner_who_appends_faster_than_it_reads(
    shop: Any,
    autojump_clock: MockClock,
) -> None:
    older, busy = shop.process, Address("order", 0)
    order_ids = (key for n in range(100) if shard_of(key := f"o{n}", shop.counts["order"]) == 0)
    placed: list[str] = []

    async def let_the_older_be_first(subject: str, _payload: bytes) -> None:
        if subject == busy.journal and not placed:
            placed.append(next(order_ids))
            await older.ask("order", placed[0], shop.order(placed[0]))

    log = MemoryLog(shop.store)
    log.before_append = let_the_older_be_first
    newer = await shop.start("newer", log)
    await shop.wait_running()
    assert newer.error is None
    await shop.place(another := next(order_ids))
    await trio.sleep(5)
    said = shop.said()
    assert [said["OrderConfirmed", order_id] for order_id in (*placed, another)] == [1, 1]


async def test_a_newcomer_takes_over_from_an_owner_who_is_always_ahead(
    shop: Any, autojump_clock: MockClock
) -> None:
    older, busy = shop.process, Address("order", 0)
    order_ids = (key for n in range(100) if shard_of(key := f"o{n}", shop.counts["order"]) == 0)
    placed: list[str] = []

    async def let_the_older_be_first(subject: str, _payload: bytes) -> None:
        if subject == busy.journal and len(placed) < FENCED_TAKE_OVERS + 1:
            placed.append(next(order_ids))
            await older.ask("order", placed[-1], shop.order(placed[-1]))

    log = MemoryLog(shop.store)
    log.before_append = let_the_older_be_first
    newer = await shop.start("newer", log)
    await shop.wait_running()
    assert newer.error is None
    assert len(placed) == FENCED_TAKE_OVERS + 1


async def test_a_take_over_that_arrives_when_its_process_is_dead_takes_nothing_from_the_next(
    shop: Any, autojump_clock: MockClock
) -> None:
    held: list[Callable[[], object]] = []

    class Slow(MemoryLog):
        async def carry(self, what: str, name: str, work: Callable[[], T]) -> T:
            if what == "append" and name == "ORDER.journal.order.0":
                held.append(work)
                await trio.sleep_forever()
            return work()

    shop.process.kill()
    dying = await shop.start("dying", Slow(shop.store))
    await trio.sleep(0.1)
    dying.kill()
    successor = await shop.start("successor")
    await shop.wait_running()
    with pytest.raises(FencedError):
        held[0]()
    await shop.place("o0")
    await shop.place("o1")
    await trio.sleep(5)
    assert not successor.ended.is_set()


async def test_an_owner_that_was_superseded_does_not_take_the_shards_back(
    shop: Any, autojump_clock: MockClock
) -> None:
    older = shop.process
    newer = await shop.start("newer")
    await shop.wait_running()
    older.crash(Address("order", 0))
    with trio.fail_after(5):
        await older.ended.wait()
    assert isinstance(older.error, SupersededError)
    assert not newer.ended.is_set()


async def test_who_was_superseded_sees_it_past_what_strangers_put_there_before_and_after(
    shop: Any, autojump_clock: MockClock
) -> None:
    older, journal = shop.process, Address("order", 0).journal
    copied = next(entry.payload for entry in shop.store.entries if entry.subject == journal)
    strange = shop.store.append(journal, copied, None, {})
    begun = Record(owner_name("newer", 1, strange), 0, Cursor())
    shop.store.append(journal, encode_record(begun), strange, {})
    for payload in (copied, b"rubbish"):
        shop.store.append(journal, payload, None, {})
    older.crash(Address("order", 0))
    with trio.fail_after(5):
        await older.ended.wait()
    assert isinstance(older.error, SupersededError)
    assert "owned by instance newer" in str(older.error)


async def test_what_the_older_instance_still_had_to_show_does_not_cover_what_the_newer_shows(
    shop: Any, autojump_clock: MockClock
) -> None:
    older = shop.process
    await shop.place("o1", "tok_slow")  # Shown as reserved, a second from now.
    newer = await shop.start("newer")
    await shop.wait_running()
    with trio.fail_after(60):
        await shop.wait_status("o1", "confirmed")
        await trio.sleep(10)
        await shop.wait_status("o1", "confirmed")
    assert isinstance(older.error, SupersededError)
    assert not newer.ended.is_set()
