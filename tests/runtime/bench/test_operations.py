"""What an order costs, counted and not timed: no busy machine makes these tests fail, and one crossing more does.

The whole of it is counted by one profile function, which sees each call of a Python function and of a C function. So
nothing is wrapped, and what runs is what runs in earnest. On the log in memory everything repeats to the call; on a
real broker how steps share records depends on how soon it answers, so there each order has the shop to itself.

A bound that is exceeded names the operation that somebody has added to every order. One that has become too wide is to
be lowered to what is reached now.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from random import Random
from types import CodeType, FrameType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.order_state import OrderState, OrderStatus
from messages import codec, record
from runtime import shard, views
from runtime.bridge import Address, Bridge
from runtime.jetstream import JetStreamLog, Layout
from runtime.link import Link
from runtime.mailbox import Mailbox

WARM_UP = 20
SLACK = 0.85  # A figure below this share of its bound asks for a lower one.

COUNTED: Mapping[str, CodeType] = {
    "records": record.encode_record.__code__,
    "facts encoded": codec.encode.__code__,
    "facts decoded": codec.decode.__code__,
    "records parsed": record.RawRecord.__init__.__code__,
    "views written": views._Version.render.__code__,
    "mailbox items": Mailbox.tell.__code__,
    "messages to the broker": Link._encode.__code__,
    "messages from the broker": Link.receive.__code__,
    "asyncio callbacks": asyncio.Handle._run.__code__,
}

# Bounds, an order. It has two items, in different shards: six records, each with one fact or none.
ALONE_IN_MEMORY = {
    "records": 6.0,
    "facts encoded": 6.0,
    "facts decoded": 0.0,
    "records parsed": 0.0,
    "mailbox items": 2.0,
    "task steps": 34.5,
}
MANY_IN_MEMORY = {
    "records": 0.55,
    "facts encoded": 6.0,
    "facts decoded": 0.0,
    "records parsed": 0.0,
    "mailbox items": 2.0,
    "views written": 1.1,
    "task steps": 3.7,
    "Python calls": 680.0,
    "C calls": 570.0,
}
ALONE_ON_A_BROKER = {
    "records": 6.0,
    "facts encoded": 6.0,
    "facts decoded": 0.0,
    "records parsed": 0.0,
    "mailbox items": 2.0,
    "messages to the broker": 6.3,  # And some that come and go with time: pulls, heartbeats.
    "messages from the broker": 12.5,
    "asyncio callbacks": 0.0,
}
AT_MOST_ON_A_BROKER = {  # An answer and a delivery may come in one read (30 steps) or in two.
    "task steps": 38.0,
}


class Operations(trio.abc.Instrument):
    """Counts while it is open."""

    def __init__(self) -> None:
        self.calls: Counter[CodeType] = Counter()
        self.c_calls = 0
        self.task_steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.task_steps += 1

    def see(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self.calls[frame.f_code] += 1
        elif event == "c_call":
            self.c_calls += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self.see)
        try:
            yield
        finally:
            sys.setprofile(None)
            trio.lowlevel.remove_instrument(self)

    def per_order(self, orders: int) -> Mapping[str, float]:
        counted = {name: self.calls[code] for name, code in COUNTED.items()}
        counted["task steps"] = self.task_steps
        counted["Python calls"] = self.calls.total()
        counted["C calls"] = self.c_calls
        return {name: round(count / orders, 2) for name, count in counted.items()}


async def buy(shop: Any, first: int, count: int, at_a_time: int) -> None:
    """Customers who place orders of two items and wait until each is confirmed."""
    numbers = iter(range(first, first + count))

    async def customer() -> None:
        for number in numbers:
            confirmed = trio.Event()

            def tell(state: OrderState, confirmed: trio.Event = confirmed) -> None:
                if state.status is OrderStatus.CONFIRMED:
                    confirmed.set()

            order = shop.order(f"o{number}", a=1, b=2)
            with shop.process.views.watching(order.order_id, tell):
                await shop.process.shards.ask("order", order.order_id, order)
                await confirmed.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(at_a_time):
            nursery.start_soon(customer)


async def count_operations(shop: Any, orders: int, at_a_time: int) -> Mapping[str, float]:
    await shop.wait_running()
    await shop.count(a=10**6, b=10**6)
    await buy(shop, 0, WARM_UP, at_a_time)
    operations = Operations()
    with operations.counting():
        await buy(shop, WARM_UP, orders, at_a_time)
        if at_a_time > 1:
            await trio.sleep(2)  # Steps that could wait, and views.
    return operations.per_order(orders)


def hold(counted: Mapping[str, float], bounds: Mapping[str, float]) -> None:
    assert exceeded(counted, bounds) == {}
    assert {name: counted[name] for name in bounds if counted[name] < bounds[name] * SLACK} == {}


def exceeded(counted: Mapping[str, float], bounds: Mapping[str, float]) -> Mapping[str, float]:
    return {name: counted[name] for name in bounds if counted[name] > bounds[name]}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What depends on how long something takes does not happen: tasks run in one order, and nothing is written late."""
    monkeypatch.setattr(trio._core._run, "_r", Random(0))
    monkeypatch.setattr(shard, "PATIENCE_S", 3600.0)
    monkeypatch.setattr(views, "LINGER_S", 3600.0)
    monkeypatch.setattr(shard, "LAST_SNAPSHOT_S", 0.0)  # It would wait for the views in the end.


@pytest.fixture
async def shop_in_memory(open_shop: Callable[[], Any]) -> AsyncIterator[Any]:
    async with open_shop() as shop:
        await shop.start()
        yield shop


@asynccontextmanager
async def shop_on(url: str, open_shop: Callable[[], Any]) -> AsyncIterator[Any]:
    async with open_shop() as shop, trio.open_nursery() as nursery:
        bridge = Bridge(Address([url]))
        await nursery.start(bridge.run)
        await bridge.wait_connected()
        log = JetStreamLog(bridge)
        await log.prepare(Layout(3600.0, 1, shop.counts))
        await shop.start(log=log)
        yield shop
        nursery.cancel_scope.cancel()


async def test_an_order_alone_costs_no_more_than_it_did(
    shop_in_memory: Any, settled: None, autojump_clock: MockClock
) -> None:
    hold(await count_operations(shop_in_memory, 50, 1), ALONE_IN_MEMORY)


async def test_an_order_among_many_costs_no_more_than_it_did(
    shop_in_memory: Any, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(trio._core._run, "_r", Random(0))
    hold(await count_operations(shop_in_memory, 320, 64), MANY_IN_MEMORY)


async def test_an_order_crosses_to_the_broker_no_more_often_than_it_did(
    own_nats_server: Any, open_shop: Callable[[], Any], settled: None
) -> None:
    async with shop_on(own_nats_server.url, open_shop) as shop:
        counted = await count_operations(shop, 50, 1)
    hold(counted, ALONE_ON_A_BROKER)
    assert exceeded(counted, AT_MOST_ON_A_BROKER) == {}
