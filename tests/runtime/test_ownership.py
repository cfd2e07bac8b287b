"""Who owns a shard: one look for all who asked before it began, and none that is older than the question."""

import pytest
import trio
from trio.testing import MockClock

from messages.record import Cursor, Record, encode_record
from runtime.log import BrokerLostError, Entry
from runtime.memory import MemoryLog
from runtime.ownership import Ownership
from runtime.recall import Address

ORDER = Address("order", 0)


class SlowLog(MemoryLog):
    """Takes a second to bring an answer, which is as old by then."""

    looks = 0

    async def last(self, subject: str) -> Entry | None:
        self.looks += 1
        found = await super().last(subject)
        await trio.sleep(1)
        return found


@pytest.fixture
def log() -> SlowLog:
    return SlowLog()


@pytest.fixture
def ownership(log: SlowLog) -> Ownership:
    return Ownership(log, "i1")


async def take_over(log: MemoryLog, instance: str) -> None:
    await log.append(ORDER.journal, encode_record(Record(f"{instance}/1", 0, Cursor())))


async def test_a_shard_is_ours_until_another_instance_has_taken_it(
    log: SlowLog, ownership: Ownership, autojump_clock: MockClock
) -> None:
    await take_over(log, "i1")
    assert await ownership.is_ours(ORDER)
    await take_over(log, "i2")
    assert not await ownership.is_ours(ORDER)


async def test_a_message_of_a_stranger_is_no_owner(
    log: SlowLog, ownership: Ownership, autojump_clock: MockClock
) -> None:
    await log.append(ORDER.journal, b"whatever")
    assert await ownership.is_ours(ORDER)


async def test_however_many_ask_at_once_the_log_is_asked_twice_at_most(
    log: SlowLog, ownership: Ownership, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await take_over(log, "i1")
    for _ in range(100):
        nursery.start_soon(ownership.is_ours, ORDER)
        await trio.sleep(0.005)
    await trio.sleep(5)
    assert log.looks == 2
    assert await ownership.is_ours(ORDER)
    assert log.looks == 3


async def test_a_look_that_began_before_the_question_is_no_answer_to_it(
    log: SlowLog, ownership: Ownership, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await take_over(log, "i1")
    nursery.start_soon(ownership.is_ours, ORDER)
    await trio.sleep(0.5)
    await take_over(log, "i2")
    assert not await ownership.is_ours(ORDER)


@pytest.mark.parametrize("gives_up_s", [0.5, 1.5])
async def test_who_looks_for_all_may_give_up(
    log: SlowLog,
    ownership: Ownership,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    gives_up_s: float,
) -> None:
    """While it waits for its turn, or in the middle of it."""
    await take_over(log, "i1")
    nursery.start_soon(ownership.is_ours, ORDER)
    await trio.sleep(0.1)

    async def give_up() -> None:
        with trio.move_on_after(gives_up_s):
            await ownership.is_ours(ORDER)
            raise AssertionError("it was to give up")

    nursery.start_soon(give_up)
    await trio.sleep(0.1)
    with trio.fail_after(10):
        assert await ownership.is_ours(ORDER)


async def test_without_a_broker_everybody_is_told(
    log: SlowLog, ownership: Ownership, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    told: list[str] = []

    async def ask() -> None:
        try:
            await ownership.is_ours(ORDER)
        except BrokerLostError:
            told.append("lost")

    log.disconnect()
    for _ in range(3):
        nursery.start_soon(ask)
    await trio.sleep(1)
    assert told == ["lost"] * 3
