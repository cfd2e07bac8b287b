"""A shard's mailbox."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.actor import Answer, Due, Outcome
from messages.generated.orders.v1 import CancelAsked
from messages.record import Cursor, Envelope
from runtime import mailbox as module
from runtime.mailbox import Ask, AskFailedError, Delivery, Item, Mailbox, OverloadedError, fail_asks


def delivery(seq: int, ordinal: int = 0, *, is_last: bool = True) -> Delivery:
    return Delivery(seq, ordinal, ordinal, is_last, Envelope(CancelAsked("o"), "o"))


def ask(order_id: str = "o1") -> Ask:
    return Ask(CancelAsked(order_id=order_id))


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def test_the_cursor_after_a_delivery_counts_what_is_left_of_its_record() -> None:
    assert delivery(7, 0, is_last=False).after == Cursor(6, 1)
    assert delivery(7, 1, is_last=False).after == Cursor(6, 2)
    assert delivery(7, 2).after == Cursor(7)


async def test_asks_and_the_shards_own_news_come_before_deliveries(mailbox: Mailbox) -> None:
    first, asked, due = delivery(1), ask(), Due("o1")
    mailbox.deliver(first)
    mailbox.ask(asked)
    mailbox.tell(due)
    assert await mailbox.take(10) == [asked, due, first]


async def test_no_more_is_taken_than_asked_for_and_the_rest_stays_in_order(
    mailbox: Mailbox,
) -> None:
    waiting = [delivery(seq) for seq in range(5)]
    for each in waiting:
        mailbox.deliver(each)
    assert await mailbox.take(2) == waiting[:2]
    assert await mailbox.take(9) == waiting[2:]


async def test_what_is_put_back_is_taken_first(mailbox: Mailbox) -> None:
    items: list[Item] = [ask("o1"), Due("o2"), delivery(1), delivery(2)]
    mailbox.put_back(items)
    mailbox.deliver(delivery(3))
    mailbox.tell(Due("o3"))
    assert await mailbox.take(9) == [*items[:2], Due("o3"), *items[2:], delivery(3)]


async def test_whoever_waits_is_woken(
    mailbox: Mailbox, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    taken: list[object] = []

    async def take() -> None:
        taken.extend(await mailbox.take(1))

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    mailbox.tell(Due("o1"))
    await wait_all_tasks_blocked()
    assert taken == [Due("o1")]


async def test_a_take_that_is_cancelled_takes_nothing_though_the_mailbox_is_full(
    mailbox: Mailbox,
) -> None:
    mailbox.tell(Due("o1"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.take(1)
    assert scope.cancelled_caught
    assert len(mailbox) == 1


async def test_the_tail_waits_for_room_until_enough_is_taken(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(module, "ROOM", 3)
    for seq in range(5):
        mailbox.deliver(delivery(seq))
    waited: list[int] = []

    async def wait() -> None:
        await mailbox.wait_room()
        waited.append(len(mailbox))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for _ in range(3):
            await wait_all_tasks_blocked()
            assert waited == []
            await mailbox.take(1)
    assert waited == [2]


async def test_a_closed_mailbox_holds_nobody_up_and_fails_who_waits_for_an_answer(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(module, "ROOM", 1)
    asked = ask()
    mailbox.ask(asked)
    mailbox.deliver(delivery(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.wait_room)
        await wait_all_tasks_blocked()
        mailbox.close()
    with pytest.raises(AskFailedError):
        await asked.wait_answered()
    assert len(mailbox) == 0


async def test_beyond_a_limit_asks_are_refused_until_some_are_taken(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASKS_MAX", 2)
    mailbox.ask(ask("o1"))
    mailbox.ask(ask("o2"))
    with pytest.raises(OverloadedError, match="2 requests"):
        mailbox.ask(ask("o3"))
    taken = await mailbox.take(1)
    mailbox.ask(ask("o3"))
    taken += await mailbox.take(1)
    mailbox.put_back(taken)
    with pytest.raises(OverloadedError, match="3 requests"):
        mailbox.ask(ask("o4"))
    mailbox.tell(Due("o5"))  # The shard's own news is never refused.


async def test_an_answer_stays_when_the_rest_of_its_group_is_failed() -> None:
    answered, failed = ask("o1"), ask("o2")
    answered.resolve(Answer(Outcome.DONE))
    fail_asks([answered, failed, Due("o3")])
    assert await answered.wait_answered() == Answer(Outcome.DONE)
    with pytest.raises(AskFailedError):
        await failed.wait_answered()


async def test_a_flood_of_asks_leaves_half_of_a_group_to_the_log() -> None:
    mailbox = Mailbox()
    for _ in range(20):
        mailbox.ask(Ask(CancelAsked(order_id="o1")))
        mailbox.deliver(Delivery(1, 0, 0, True, Envelope(CancelAsked(order_id="o1"), "o1")))
    taken = await mailbox.take(10)
    assert [isinstance(item, Ask) for item in taken] == [True] * 5 + [False] * 5
    assert isinstance((await mailbox.take(1))[0], Delivery)
