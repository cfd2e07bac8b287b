"""Poison on every way in: each bad message is set aside once, with its reason, and good orders notice nothing.

`POISON_MESSAGES` says how many; the nightly run has more of them than the suite.
"""

import gc
import os
import time
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from messages.codec import encode
from messages.record import RawRecord
from runtime.chaos.outcome import percentile
from runtime.chaos.poison import find_unburied, mutated, poison
from runtime.dead_letters import drop, read_letters
from runtime.log import Entry
from runtime.memory import MemoryLog, MemoryStore
from runtime.recall import Address
from supervisors import ChildCrashed
from supervisors.reports import ErrorReport

MESSAGES = int(os.environ.get("POISON_MESSAGES", "3000"))
GOOD_EVERY = 50
STALL_S = 0.1

ORDER_0, ORDER_1 = Address("order", 0), Address("order", 1)


def publish_raw(store: MemoryStore, subject: str, payload: bytes, **headers: str) -> int:
    """As a stranger does, whose client checks nothing."""
    return store.append(subject, payload, None, headers)


def crashes(shop: Any) -> list[ChildCrashed]:
    return [report for report in shop.process.reports if isinstance(report, ChildCrashed)]


def errors(shop: Any) -> list[BaseException]:
    return [report.error for report in shop.process.reports if isinstance(report, ErrorReport)]


async def wait_unburied(shop: Any) -> tuple[list[str], int]:
    """What is not buried as it has to be, when nothing changes any more."""
    await trio.sleep(5)
    return await find_unburied(MemoryLog(shop.store), shop.process.shards.routes())


async def test_every_bad_message_is_buried_once_and_good_orders_among_them_are_confirmed(
    shop: Any, autojump_clock: MockClock
) -> None:
    random = Random(1)
    good = [f"good{number}" for number in range(MESSAGES // GOOD_EVERY)]
    await shop.count(hat=1_000_000)
    for number in range(MESSAGES):
        subject, payload, headers = poison(random, f"s{number}", "hat")
        publish_raw(shop.store, subject, payload, **headers)
        if number % GOOD_EVERY == 0 and number // GOOD_EVERY < len(good):
            order_id = good[number // GOOD_EVERY]
            for _ in range(2):  # Doubled, as senders do who are not sure.
                await shop.publish(order_id, encode(shop.order(order_id, hat=1)))
        if number % 500 == 0:
            await trio.sleep(1)
    for order_id in good:
        await shop.wait_status(order_id, "confirmed")
        assert shop.taken_minor(order_id) == 100
    missing, buried = await wait_unburied(shop)
    assert missing == []
    assert buried > MESSAGES / 2
    assert crashes(shop) == []
    before = len(await read_letters(MemoryLog(shop.store)))
    shop.process.kill()
    await shop.start()
    await wait_unburied(shop)
    assert len(await read_letters(MemoryLog(shop.store))) == before


async def test_poison_holds_the_loop_up_for_no_tenth_of_a_second(open_shop: Any) -> None:
    """In real time; what others do on this machine does not count: the loop's own time between two ticks does."""
    gc.collect()  # What other tests have left is not poison's fault.
    random, slow_s = Random(2), list[float]()

    async def tick() -> None:
        while True:
            began_s = time.thread_time()
            await trio.sleep(0.001)
            slow_s.append(time.thread_time() - began_s)

    async with open_shop() as shop, trio.open_nursery() as nursery:
        await shop.start()
        await shop.count(hat=1_000_000)
        nursery.start_soon(tick)
        for number in range(min(MESSAGES, 1_000)):
            publish_raw(shop.store, *poison(random, f"s{number}", "hat")[:2])
            if number % 10 == 0:
                await trio.lowlevel.checkpoint()
        await shop.place("good", hat=1)
        await shop.wait_status("good", "confirmed")
        nursery.cancel_scope.cancel()
    assert percentile(slow_s, 99.9) < STALL_S


@pytest.mark.parametrize(
    "subject",
    [
        "ORDER.created",
        "ORDER.created.*",
        "ORDER.created.>",
        "ORDER.created.a b",
        "ORDER.created.a\tb",
        "ORDER.created.\u00e9\U0001f600",
        "ORDER.created.\ufffd",
        "ORDER.created.../../etc",
        "ORDER.created.a.b.c",
        "ORDER.created." + "x" * 4_000,
        "ORDER.again",
        "ORDER.again.order",
        "ORDER.again.order.0",
        "ORDER.again.order.9999999999999999999999",
        "ORDER.again.$JS.API",
        "ORDER.journal",
        "ORDER.journal.order.99",
        "ORDER.journal.nobody",
        "ORDER.orders.created.o1",
        "ORDER.$KV",
    ],
)
async def test_wherever_a_message_lies_that_nobody_can_use_it_is_buried_once(
    shop: Any, subject: str, autojump_clock: MockClock
) -> None:
    seq = publish_raw(shop.store, subject, encode(shop.order("o1")))
    await shop.place("good")
    await shop.wait_status("good", "confirmed")
    (letter,) = (await read_letters(MemoryLog(shop.store))).values()
    assert (letter.letter.seq, letter.letter.attempts) == (seq, 1)
    assert letter.letter.reason
    assert letter.entry.headers["Orders-Reason"]
    assert crashes(shop) == []


NONSENSE = {
    "traceparent": "\x00\xff\u20ac" * 500,
    "tracestate": "=" * 5_000,
    "Orders-Letter-Id": "order.0.1.0",
    "Orders-Replay-Of": "*" * 9_999,
    "Nats-Expected-Last-Sequence": "-1",
    "": "",
    "baggage": "\r\n\r\n",
}


async def test_an_order_with_nonsense_for_headers_is_an_order(
    shop: Any, autojump_clock: MockClock
) -> None:
    shop.store.append("ORDER.created.o1", encode(shop.order("o1")), None, NONSENSE)
    shop.store.append("ORDER.created.junk", b"junk", None, NONSENSE)
    await shop.wait_status("o1", "confirmed")
    (letter,) = shop.letters()
    assert letter.correlation_id == "junk"
    assert crashes(shop) == []


async def test_what_a_stranger_puts_among_the_letters_is_heard_by_nobody(
    shop: Any, autojump_clock: MockClock
) -> None:
    for payload in (b"", b"\xff" * 99, encode(shop.order("o1"))):
        shop.store.append("ORDER.dead.order.0", payload, None, NONSENSE)
        publish_raw(shop.store, "ORDER.dead.nobody", payload)
    await shop.place("good")
    await shop.wait_status("good", "confirmed")
    assert "o1" not in shop.store.views
    letters = await read_letters(MemoryLog(shop.store))
    assert all(letter.is_open for letter in letters.values())


# --- on a journal: a stranger moves the fence


def foreign(shop: Any, kind: str) -> bytes:
    """What a stranger may put on the journal of order.0."""
    entries: list[Entry] = shop.store.entries
    other = [entry for entry in entries if entry.subject == ORDER_1.journal]
    own = [entry for entry in entries if entry.subject == ORDER_0.journal]
    with_states = [entry for entry in own if RawRecord(entry.payload).states]
    begins = [entry for entry in own if RawRecord(entry.payload).turn == 0]
    match kind:
        case "rubbish":
            return b"rubbish"
        case "a mutated record":
            return mutated(with_states[-1].payload, Random(3))
        case "a copy of an earlier record" | "a copy of an earlier instance's record":
            return with_states[0].payload
        case "a copy of an earlier instance's first record":
            return begins[0].payload
        case "a record of another journal":
            return other[-1].payload
        case _:
            return encode(shop.order("o9"))


@pytest.mark.parametrize(
    "kind",
    [
        "rubbish",
        "a mutated record",
        "a copy of an earlier record",
        "a copy of an earlier instance's record",
        "a copy of an earlier instance's first record",
        "a record of another journal",
        "an order",
    ],
)
async def test_a_record_that_a_stranger_put_on_a_journal_is_not_believed_and_once_its_letter_is_dropped_all_goes_on(
    shop: Any, kind: str, autojump_clock: MockClock
) -> None:
    """Its shard refuses to recover over it, loudly; the others go on, and no order is lost or made twice."""
    for number in range(6):
        await shop.place(f"before{number}")
    for number in range(6):
        await shop.wait_status(f"before{number}", "confirmed")
    if "instance" in kind:
        await shop.process.stop()
        await shop.start("i2")
        await shop.wait_running()
    seq = publish_raw(shop.store, ORDER_0.journal, foreign(shop, kind))
    async with trio.open_nursery() as customers:
        for number in range(6):
            customers.start_soon(shop.place, f"during{number}")
        await trio.sleep(20)
        assert ORDER_0 not in shop.process.shards.running()
        assert set(shop.process.shards.running()) >= {ORDER_1}
        told = str(errors(shop)[-1])
        assert f"message {seq} on {ORDER_0.journal} cannot be recovered over" in told
        log = MemoryLog(shop.store)
        (letter,) = (await read_letters(log)).values()
        assert (letter.letter.seq, letter.letter.type) == (seq, "Record")
        await drop(log, letter, "me@here", "not ours")
    for number in range(6):
        for when in ("before", "during"):
            await shop.wait_status(f"{when}{number}", "confirmed")
            assert shop.taken_minor(f"{when}{number}") == 100
    await trio.sleep(5)
    assert (await shop.stocks())["a"].sold == 12


@pytest.mark.parametrize(
    "journals",
    [["order.0"], ["order.1"], ["payment.0"], ["order.0", "order.1"]],
    ids=lambda journals: "+".join(journals),
)
async def test_a_start_over_what_nobody_can_read_ends_and_names_the_letter_whose_drop_lets_the_next_one_recover(
    shop: Any, autojump_clock: MockClock, journals: list[str]
) -> None:
    await shop.place("o0")
    await shop.wait_status("o0", "confirmed")
    await shop.process.stop()
    for journal in journals:
        publish_raw(shop.store, f"ORDER.journal.{journal}", b"rubbish")
    log, dropped = MemoryLog(shop.store), list[str]()
    for _ in journals:
        process = await shop.start("next")
        with trio.fail_after(60):
            await process.ended.wait()
        (buried,) = [one for one in (await read_letters(log)).values() if one.is_open]
        assert f"`orders dead drop {buried.id} --reason" in str(process.error)
        await drop(log, buried, "me", "not ours")
        dropped.append(buried.id)
    await shop.start("last")
    await shop.wait_running()
    await shop.place("o1")
    await shop.wait_status("o1", "confirmed")
    await trio.sleep(5)
    assert len(shop.letters()) == len(journals)
    letters = await read_letters(log)
    assert [(one.id, one.is_open) for one in letters.values()] == [(one, False) for one in dropped]
