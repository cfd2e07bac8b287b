"""A newer instance takes the shards over from an older one that is busy."""

from typing import Any

import trio
from trio.testing import MockClock

from messages.routing import shard_of
from runtime.log import SupersededError
from runtime.memory import MemoryLog
from runtime.recall import Address


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
