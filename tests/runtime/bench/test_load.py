"""The load: what it buys, and that it charges every order with the time from when it was due."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from actors.order_check import LINES_MAX, find_fault
from messages.codec import decode, encode
from messages.generated.orders.v1 import OrderCreated
from runtime.bench.frames import Frames, Kind, frame
from runtime.bench.goods import order_bytes, order_id, order_json, units
from runtime.bench.load import Load, percentile
from runtime.bench.measured import Channel, InstanceDiedError
from runtime.desk import created_from
from runtime.edge.bodies import new_order

Answer = Callable[[Kind, int, bytes], bytes]


@asynccontextmanager
async def load_on(answer: Answer, stalls_s: tuple[float, float] = (0, 0)) -> AsyncIterator[Load]:
    """A load on an instance that answers at once, but for a stall from one time to another."""
    here, there = memory_stream_pair()

    async def instance() -> None:
        frames, start_s = Frames(), trio.current_time()
        while chunk := await there.receive_some():
            if stalls_s[0] <= trio.current_time() - start_s < stalls_s[1]:
                await trio.sleep_until(start_s + stalls_s[1])
            for received in frames.feed(chunk):
                await there.send_all(answer(*received))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(instance)
        yield Load(Channel(here))
        nursery.cancel_scope.cancel()


def confirm(kind: Kind, number: int, payload: bytes) -> bytes:
    return frame(Kind.DONE, number)


@pytest.mark.parametrize("lines", [1, 2, LINES_MAX])
@pytest.mark.parametrize("number", [0, 1_234_567])
def test_what_is_bought_is_a_sound_order(number: int, lines: int) -> None:
    created = decode(OrderCreated, order_bytes(number, lines))
    assert find_fault(created) == ""
    assert encode(created) == order_bytes(number, lines)
    assert sum(item.quantity for item in created.items) == units(lines)
    over_http = created_from(new_order(order_json(number), order_id(number)))
    assert over_http == decode(OrderCreated, order_bytes(number))


async def test_a_stall_is_charged_to_every_order_that_was_due_during_it(
    autojump_clock: MockClock,
) -> None:
    async with load_on(confirm, stalls_s=(0.5, 2.5)) as load:
        took_ms = await load.paced(500, rate_hz=100)
    assert len(took_ms) == 500
    slow = [one for one in took_ms if one > 1]
    assert len(slow) == pytest.approx(200, abs=6)  # Two seconds' worth, not one.
    assert percentile(took_ms, 0.5) < 1
    assert percentile(took_ms, 0.8) == pytest.approx(1_000, rel=0.1)
    assert took_ms[-1] == pytest.approx(2_000, rel=0.05)


async def test_no_more_than_planned_are_in_flight(autojump_clock: MockClock) -> None:
    placed: list[int] = []

    def keep_silent_after_3(kind: Kind, number: int, payload: bytes) -> bytes:
        placed.append(number)
        return confirm(kind, number, payload) if number < 3 else b""

    async with load_on(keep_silent_after_3) as load:
        with trio.move_on_after(1):
            await load.all_at_once(100, in_flight=8)
    assert placed == list(range(11))


async def test_every_order_is_placed_once(autojump_clock: MockClock) -> None:
    placed: list[int] = []

    def count(kind: Kind, number: int, payload: bytes) -> bytes:
        placed.append(number)
        return confirm(kind, number, payload)

    async with load_on(count) as load:
        await load.all_at_once(100, in_flight=8)
        await load.paced(10, rate_hz=100)
    assert placed == list(range(110))


async def test_an_order_that_fails_fails_the_benchmark(autojump_clock: MockClock) -> None:
    def refuse(kind: Kind, number: int, payload: bytes) -> bytes:
        return frame(Kind.FAILED, number, b"bench-3 is rejected")

    async with load_on(refuse) as load:
        with pytest.raises(InstanceDiedError, match="bench-3 is rejected"):
            await load.all_at_once(10)


async def test_units_that_are_not_sold_fail_the_benchmark(autojump_clock: MockClock) -> None:
    def sell_too_few(kind: Kind, number: int, payload: bytes) -> bytes:
        return frame(Kind.ANSWER, 0, b"29") if kind is Kind.COMMAND else confirm(kind, number, b"")

    async with load_on(sell_too_few) as load:
        await load.all_at_once(10)
        with pytest.raises(InstanceDiedError, match="30 units should be sold, and 29 are"):
            await load.check()


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.99, 10), (0.1, 1), (0.11, 2)])
def test_a_percentile_is_the_value_that_this_share_does_not_exceed(
    share: float, value: float
) -> None:
    assert percentile([float(n) for n in range(1, 11)], share) == value


def test_the_load_never_imports_the_bridge_between_asyncio_and_trio() -> None:
    code = "import sys, runtime.commands.bench; sys.exit('trio_asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
