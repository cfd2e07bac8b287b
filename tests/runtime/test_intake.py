"""The open way in: orders, and what is none, published by anybody."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtime.recall import Address
from runtime.shard import GROUP_LETTERS_MAX
from supervisors import ChildCrashed


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 30,
        b'{"order_id": "junk"}',
        b"o1,c1,GBP,100",
        b"\x00" * 70_000,
        b"\x00" * 8 * 1024 * 1024,
    ],
    ids=["empty", "garbage", "json", "text", "long", "as long as the broker takes"],
)
async def test_what_is_no_order_is_buried_once_and_stops_nobody(
    shop: Any, payload: bytes, autojump_clock: MockClock
) -> None:
    seq = await shop.publish("junk", payload)
    await shop.publish("o1", bytes(shop.order("o1")))
    await shop.wait_status("o1", "confirmed")
    (letter,) = shop.letters()
    assert (letter.seq, letter.subject, letter.attempts) == (seq, "ORDER.created.junk", 1)
    assert _crashes(shop) == 0
    await shop.process.stop()
    await shop.start()
    await shop.place("o2")
    assert len(shop.letters()) == 1


async def test_an_order_under_another_ones_id_is_buried(
    shop: Any, autojump_clock: MockClock
) -> None:
    await shop.publish("o1", bytes(shop.order("o2")))
    await trio.sleep(1)
    (letter,) = shop.letters()
    assert "names order o1" in letter.reason
    assert shop.said()["OrderOpened", "o2"] == 0


@pytest.mark.parametrize("payload", [b"\x00" * 60_000, None], ids=["junk", "reused id"])
async def test_a_flood_of_large_letters_is_buried_in_records_that_the_broker_takes(
    shop: Any, payload: bytes | None, autojump_clock: MockClock
) -> None:
    await shop.place("o1")
    await shop.wait_status("o1", "confirmed")
    other = shop.order("o1")
    other.customer_id = "c" * 60_000
    shop.process.kill()
    for _ in range(300):
        await shop.publish("o1", payload or bytes(other))
    await shop.start()
    await shop.place("o2")
    await shop.wait_status("o2", "confirmed")
    await trio.sleep(5)
    assert len(shop.letters()) == 300
    assert _crashes(shop) == 0


async def test_a_flood_of_rubbish_is_buried_little_by_little_so_that_orders_come_in_between(
    shop: Any, autojump_clock: MockClock
) -> None:
    shop.process.kill()
    for _ in range(300):
        await shop.publish("junk", b"junk")
    await shop.start()
    await shop.wait_running()
    await trio.sleep(5)
    addresses = [Address("order", shard) for shard in range(2)]
    letters = [len(record.letters) for one in addresses for record in shop.records(one)]
    assert sum(letters) == 300
    assert max(letters) <= GROUP_LETTERS_MAX


@pytest.mark.parametrize("when", ["live", "finished"])
async def test_a_reused_id_by_the_open_way_is_buried_and_the_order_is_unaffected(
    shop: Any, when: str, autojump_clock: MockClock
) -> None:
    await shop.place("o1", "tok_slow", a=2)
    if when == "finished":
        await shop.wait_status("o1", "confirmed")
    await shop.publish("o1", bytes(shop.order("o1", a=3)))
    await shop.publish("o1", bytes(shop.order("o1", "tok_slow", a=2)))  # The same again is none.
    await shop.wait_status("o1", "confirmed")
    await trio.sleep(1)
    (letter,) = shop.letters()
    assert "another body" in letter.reason
    assert shop.taken_minor("o1") == 200


def _crashes(shop: Any) -> int:
    return sum(isinstance(report, ChildCrashed) for report in shop.process.reports)


@pytest.mark.parametrize(
    "traceparent",
    ["garbage", "-", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-" + "a" * 3000 + "-b-01"],
)
async def test_a_stranger_who_writes_nonsense_for_a_trace_gets_a_new_one(
    shop: Any, traceparent: str, autojump_clock: MockClock
) -> None:
    await shop.process.log.append(
        "ORDER.created.o1", bytes(shop.order("o1")), headers={"traceparent": traceparent}
    )
    view = await shop.wait_status("o1", "confirmed")
    assert len(view["trace_id"]) == 32
    assert _crashes(shop) == 0
