"""What the wires do to messages, and that nothing gets past a fence by being late."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from runtime.log import BrokerLostError, FencedError
from runtime.memory import MemoryLog

T = TypeVar("T")


class SlowLog(MemoryLog):
    """Requests arrive when the test says so, wanted or not."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], object]] = []
        self.is_holding = False

    async def carry(self, what: str, name: str, work: Callable[[], T]) -> T:
        if self.is_holding:
            self.held.append(work)
            await trio.sleep_forever()
        return work()


async def hold(log: SlowLog, request: Callable[[], object]) -> Callable[[], object]:
    log.is_holding = True
    with pytest.raises(BrokerLostError):
        await request()  # type: ignore[misc]  # A coroutine function.
    log.is_holding = False
    return log.held.pop()


async def test_views_that_arrive_after_a_later_claim_of_the_same_client_are_refused(
    autojump_clock: MockClock,
) -> None:
    log = SlowLog()
    await log.claim_views()
    arrive = await hold(log, partial(log.put_views, {"o1": b"old"}))
    await log.claim_views()
    await log.put_views({"o1": b"new"})
    with pytest.raises(FencedError):
        arrive()
    assert await log.get_view("o1") == b"new"


async def test_an_append_that_arrives_after_the_next_one_is_refused(
    autojump_clock: MockClock,
) -> None:
    log = SlowLog()
    arrive = await hold(log, partial(log.append, "ORDER.journal.order.0", b"old", expect=0))
    await log.append("ORDER.journal.order.0", b"new", expect=0)
    with pytest.raises(FencedError):
        arrive()
    assert [entry.payload for entry in log.store.entries] == [b"new"]
