"""The public views: what is written, and what waits for it."""

import pytest
import trio

from actors.order import OrderActor, OrderState, OrderStatus
from runtime.log import BrokerLostError
from runtime.memory import MemoryLog
from runtime.views import Views

ACTOR = OrderActor(reservation_ttl_ms=1000)
CONFIRMED = OrderState(
    order_id="o1",
    customer_id="c",
    currency="GBP",
    total_minor=1,
    items=(),
    payment_token="tok_ok",
    digest=0,
    deadline_ms=0,
    status=OrderStatus.CONFIRMED,
    history=(),
)


async def test_waiting_for_views_ends_when_they_are_written(autojump_clock):
    log = MemoryLog()
    views = Views(log)
    async with trio.open_nursery() as nursery:
        await nursery.start(views.run)
        views.put("o1", ACTOR, CONFIRMED, "")
        await views.wait_written()
        nursery.cancel_scope.cancel()
    assert await log.get_view("o1")


async def test_nobody_waits_for_views_that_nobody_writes(autojump_clock):
    views = Views(MemoryLog())
    views.put("o1", ACTOR, CONFIRMED, "")
    with trio.fail_after(1), pytest.raises(BrokerLostError):
        await views.wait_written()


async def test_whoever_waits_hears_when_the_writing_stops(autojump_clock):
    views = Views(MemoryLog())
    async with trio.open_nursery() as nursery:
        writer = await nursery.start(_cancellable, views)
        views.put("o1", ACTOR, CONFIRMED, "")
        nursery.start_soon(_cancel_soon, writer)
        with trio.fail_after(1), pytest.raises(BrokerLostError):
            await views.wait_written()


async def _cancellable(views: Views, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(views.run)
            task_status.started(scope)


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await trio.sleep(0.01)
    scope.cancel()
