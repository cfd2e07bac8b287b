"""The desk over real shards on the memory log: what a client may count on, however the shards fare."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.actor import Outcome
from runtime.desk import ANSWER_S, SHED_AFTER_S, Desk
from runtime.desk_types import NewItem, NewOrder, Unavailable
from runtime.memory import MemoryLog
from runtime.recall import Address
from runtime.shards import Shards
from runtime.tracing import Tracer
from runtime.views import Views

ORDER = NewOrder("o1", "c1", "GBP", (NewItem("a", 2, 100),), "tok_ok")


def desk_of(process: Any, *, connected: Callable[[], bool] = lambda: True) -> Desk:
    parts = (process.shards, process.views, process.log, Tracer())
    return Desk(*parts, instance_id=process.instance_id, connected=connected, describe_tree=dict)


@pytest.fixture
def desk(shop: Any) -> Desk:
    return desk_of(shop.process)


async def status_of(desk: Desk, order_id: str) -> str | None:
    found = await desk.view(order_id)
    return None if found is None else msgspec.json.decode(found)["status"]


async def test_a_placed_order_is_found_at_once(desk: Desk, autojump_clock: MockClock) -> None:
    placed = await desk.place(ORDER)
    assert (placed.outcome, placed.status) == (Outcome.DONE, "pending")
    assert await status_of(desk, "o1") is not None


async def test_a_placed_order_is_found_at_once_by_whoever_asks_after_a_crash(
    shop: Any, autojump_clock: MockClock
) -> None:
    await desk_of(shop.process).place(ORDER)
    shop.process.kill()
    assert "o1" not in shop.store.views, "else this shows nothing"
    restarted = await shop.start()
    assert await status_of(desk_of(restarted), "o1") is not None


async def test_an_order_that_nobody_placed_is_not_found(
    desk: Desk, autojump_clock: MockClock
) -> None:
    assert await desk.view("o1") is None


async def test_the_same_order_again_is_the_same_and_another_under_its_id_is_refused(
    desk: Desk,
    autojump_clock: MockClock,
) -> None:
    await desk.place(ORDER)
    await desk.wait_terminal("o1", 10)
    again = await desk.place(ORDER)
    assert (again.outcome, again.status) == (Outcome.DONE, "confirmed")
    other = await desk.place(replace(ORDER, customer_id="c2"))
    assert other.outcome is Outcome.REUSED


async def test_waiting_for_an_order_ends_when_it_does(
    desk: Desk, autojump_clock: MockClock
) -> None:
    await desk.place(replace(ORDER, payment_token="tok_slow"))
    started = trio.current_time()
    found = await desk.wait_terminal("o1", 30)
    assert found is not None
    assert msgspec.json.decode(found)["status"] == "confirmed"
    assert trio.current_time() - started < 5


async def test_waiting_for_an_order_ends_with_what_there_is_when_the_time_is_up(
    desk: Desk, autojump_clock: MockClock
) -> None:
    await desk.place(replace(ORDER, payment_token="tok_slow"))
    found = await desk.wait_terminal("o1", 1)
    assert found is not None
    assert msgspec.json.decode(found)["status"] == "reserved"


async def test_a_cancel_in_time_is_done_and_one_too_late_says_so(
    desk: Desk, autojump_clock: MockClock
) -> None:
    await desk.place(replace(ORDER, payment_token="tok_slow"))
    assert (await desk.cancel("o1")).outcome is Outcome.DONE
    await desk.wait_terminal("o1", 30)
    assert await status_of(desk, "o1") == "cancelled"
    assert (await desk.cancel("o1")).outcome is Outcome.DONE

    await desk.place(replace(ORDER, order_id="o2"))
    await desk.wait_terminal("o2", 30)
    late = await desk.cancel("o2")
    assert (late.outcome, late.status) == (Outcome.TOO_LATE, "confirmed")
    assert (await desk.cancel("o3")).outcome is Outcome.UNKNOWN


async def test_whoever_asks_a_shard_that_restarts_for_longer_is_told_in_time(
    shop: Any, autojump_clock: MockClock
) -> None:
    desk = desk_of(shop.process)

    async def be_slow(_subject: str, _payload: bytes) -> None:
        await trio.sleep(4)

    shop.process.log.before_append = be_slow
    for shard in range(shop.counts["order"]):
        shop.process.crash(Address("order", shard))
    await trio.sleep(0.5)
    assert not {address for address in shop.process.shards.running() if address.actor == "order"}
    started = trio.current_time()
    with pytest.raises(Unavailable):
        await desk.place(ORDER)
    with pytest.raises(Unavailable):
        await desk.cancel("o1")
    assert trio.current_time() - started <= 2 * ANSWER_S + 0.1

    shop.process.log.before_append = None
    await shop.wait_running()
    assert (await desk.place(ORDER)).outcome is Outcome.DONE


async def test_an_append_without_an_answer_is_told_in_time_and_the_order_is_placed_once(
    shop: Any,
    autojump_clock: MockClock,
) -> None:
    desk = desk_of(shop.process)
    shop.process.log.lose_answers()
    with pytest.raises(Unavailable):
        await desk.place(ORDER)
    await shop.wait_running()
    assert (await desk.place(ORDER)).outcome is Outcome.DONE
    await desk.wait_terminal("o1", 30)
    assert shop.said()["OrderOpened", "o1"] == 1
    assert shop.taken_minor("o1") == 200


async def test_before_the_shards_have_started_a_read_is_refused_rather_than_wrong(
    shop: Any,
    autojump_clock: MockClock,
) -> None:
    log = MemoryLog(shop.store)
    parts = (Shards(shop.terms, shop.counts), Views(log), log, Tracer())
    desk = Desk(*parts, instance_id="i1", connected=lambda: True, describe_tree=dict)
    started = trio.current_time()
    with pytest.raises(Unavailable):
        await desk.view("o1")
    assert trio.current_time() - started <= ANSWER_S + 0.1


async def test_a_superseded_process_does_not_say_that_an_order_is_unknown(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = desk_of(shop.process)
    # Else it would soon hear of the order, and be fenced off.
    monkeypatch.setattr(shop.process.tail, "_take", lambda _: None)
    newer = desk_of(await shop.start("i2"))
    assert (await newer.place(ORDER)).outcome is Outcome.DONE
    for ask in (older.view, older.cancel, older.retry):
        with pytest.raises(Unavailable, match="another instance"):
            await ask("o1")
    assert await status_of(newer, "o1") is not None


async def test_a_superseded_process_shows_only_what_cannot_have_changed_since(
    shop: Any, autojump_clock: MockClock
) -> None:
    older = desk_of(shop.process)
    await older.place(replace(ORDER, order_id="finished"))
    await older.wait_terminal("finished", 10)
    await older.place(replace(ORDER, payment_token="tok_slow"))
    assert await status_of(older, "o1") == "pending"
    newer = desk_of(await shop.start("i2"))
    await newer.cancel("o1")
    with pytest.raises(Unavailable, match="another instance"):
        await older.view("o1")
    assert await status_of(older, "finished") == "confirmed"


async def test_what_is_finished_is_shown_without_asking_the_log_anything(
    shop: Any, desk: Desk, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.place(ORDER)
    monkeypatch.setattr(shop.process.log, "last", None)
    assert await desk.wait_terminal("o1", 10)
    assert await status_of(desk, "o1") == "confirmed"
    await trio.sleep(5)
    assert "o1" in shop.store.views
    assert await status_of(desk, "o1") == "confirmed"


async def test_without_a_broker_nobody_waits(shop: Any, autojump_clock: MockClock) -> None:
    desk = desk_of(shop.process, connected=lambda: False)
    started = trio.current_time()
    for ask in (desk.view("o1"), desk.cancel("o1"), desk.place(ORDER)):
        with pytest.raises(Unavailable, match="not connected"):
            await ask
    assert trio.current_time() == started


async def test_a_shard_that_lets_others_wait_for_long_is_given_no_more_orders(
    shop: Any, desk: Desk, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    desk.admit("o1")

    async def never(*_: object) -> None:
        await trio.sleep_forever()

    shop.process.log.before_append = never

    async def place_in_vain() -> None:
        with pytest.raises(Unavailable, match="no answer in time"):
            await desk.place(ORDER)

    nursery.start_soon(place_in_vain)
    await trio.sleep(SHED_AFTER_S)
    desk.admit("o1")
    await trio.sleep(0.1)
    with pytest.raises(Unavailable, match="faster than they can be stored"):
        desk.admit("o1")
    others = (f"o{number}" for number in range(2, 100))
    desk.admit(next(o for o in others if not same_shard(shop, o, "o1")))
    await trio.sleep(ANSWER_S)
    desk.admit("o1")  # Nobody waits any more.


def same_shard(shop: Any, one: str, other: str) -> bool:
    shards = shop.process.shards
    return bool(shards.address_of("order", one) == shards.address_of("order", other))


async def test_who_watches_an_order_is_told_of_its_changes_and_of_the_closing(
    shop: Any, desk: Desk, autojump_clock: MockClock
) -> None:
    desk.open()
    told: list[str] = []
    with desk.watching("o1", lambda: told.append("o1")):
        await desk.place(replace(ORDER, order_id="o2"))
        assert told == []
        await desk.place(ORDER)
        assert told
        told.clear()
        desk.close()
        assert told == ["o1"]
    desk.close()
    assert told == ["o1"]
