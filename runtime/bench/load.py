"""The load: orders placed on an instance from another process, so many at a time or so many a second.

By ask it goes over the channel, by intake to the broker as any producer would. There is no task an order: what is
finished is replaced, many in one write.
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import trio

from runtime.bench.frames import Kind, frame
from runtime.bench.goods import LINES, order_bytes, order_id, units
from runtime.bench.measured import Channel, InstanceDiedError

IN_FLIGHT = 256
SOLD_WITHIN_S = 30.0  # Of the last one that was.
COUNT_AGAIN_S = 0.3
COUNT_SHARE = 5.0

Place = Callable[[int], bytes]
"""Makes the frame that places an order, or has it watched."""


class Load:
    """Places orders, each under a number of its own, and knows how many units they take."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._units = 0
        self.placed = 0

    async def open_shop(self, warm_up: int) -> None:
        """Stock the shelves, and place some orders that nobody measures."""
        await self.channel.command("fill shelves")
        await self.all_at_once(warm_up)

    # --- so many at a time ---

    async def all_at_once(
        self,
        count: int,
        *,
        in_flight: int = IN_FLIGHT,
        lines: int = LINES,
        kind: Kind = Kind.ASK,
        producer: "Producer | None" = None,
    ) -> None:
        """Place `count` orders and see each to its end, with `in_flight` under way at any time."""
        numbers = self._take_numbers(count, lines if kind is not Kind.ECHO else 0)
        ahead, left = iter(numbers), count
        await self._place(list(islice(ahead, in_flight)), kind, lines, producer)
        while left:
            done = await self._take_done()
            left -= len(done)
            await self._place(list(islice(ahead, len(done))), kind, lines, producer)

    async def _place(
        self, numbers: list[int], kind: Kind, lines: int, producer: "Producer | None"
    ) -> None:
        if not numbers:
            return
        if producer is None:
            asks = [frame(kind, number, order_bytes(number, lines)) for number in numbers]
            await self.channel.send(b"".join(asks))
            return
        await self.watch(numbers)
        await producer.publish([(order_id(n), order_bytes(n, lines)) for n in numbers])

    async def watch(self, numbers: list[int], name: Callable[[int], str] = order_id) -> None:
        """Hear of the end of orders that are placed in another way."""
        watches = [frame(Kind.WATCH, number, name(number).encode()) for number in numbers]
        await self.channel.send(b"".join(watches))

    async def hear_of(self, count: int) -> None:
        """Wait until so many of those that are watched are confirmed."""
        while count > 0:
            count -= len(await self._take_done())

    async def _take_done(self) -> list[int]:
        done: list[int] = []
        for kind, number, payload in await self.channel.take():
            if kind is Kind.FAILED:
                raise InstanceDiedError(f"an order failed: {payload.decode()}")
            done.append(number)
        return done

    # --- so many a second ---

    async def paced(self, count: int, rate_hz: float) -> list[float]:
        """Place an order every 1/rate seconds, ready or not; returns each one's milliseconds from its due time.

        A stall is thus charged to every order that it delays, as its customers would.
        """
        numbers = self._take_numbers(count)
        start_s = trio.current_time() + 0.05
        took_ms: list[float] = []

        async def place() -> None:
            for nth, number in enumerate(numbers):
                await trio.sleep_until(start_s + nth / rate_hz)
                await self._place([number], Kind.ASK, LINES, None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(place)
            while len(took_ms) < count:
                done = await self._take_done()
                now_s = trio.current_time()
                took_ms += [(now_s - start_s - (n - numbers.start) / rate_hz) * 1e3 for n in done]
        return sorted(took_ms)

    def _take_numbers(self, count: int, lines: int = LINES) -> range:
        numbers = range(self.placed, self.placed + count)
        self.placed += count
        self._units += count * units(lines)
        return numbers

    # --- is it true? ---

    async def check(self, sold_elsewhere: int = 0) -> None:
        """A benchmark of something that does not work is worth nothing: every unit must be sold, once.

        Raises:
            InstanceDiedError: it is not so.
        """
        expected, sold = self._units + sold_elsewhere, -1
        with trio.CancelScope() as patience:
            while True:
                asked_s = trio.current_time()
                now_sold = await self.channel.command("count sold")
                if now_sold != sold:
                    patience.deadline = trio.current_time() + SOLD_WITHIN_S
                sold = now_sold
                if sold == expected:
                    return
                # Counting reads the log: it must not be most of what the instance does.
                await trio.sleep(COUNT_AGAIN_S + COUNT_SHARE * (trio.current_time() - asked_s))
        raise InstanceDiedError(f"{expected} units should be sold, and {sold} are")


def percentile(ordered: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share) - 1)]


class Producer:
    """A stranger's producer: publishes on the open way in, and reads the broker's answers without looking at them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def publish(self, orders: list[tuple[str, bytes]]) -> None:
        lines = [
            b"PUB ORDER.created.%b bench.answer %d\r\n%b\r\n" % (name.encode(), len(body), body)
            for name, body in orders
        ]
        await self._stream.send_all(b"".join(lines))

    async def read_answers(self) -> None:
        while chunk := await self._stream.receive_some(65536):
            if b"PING\r\n" in chunk:
                await self._stream.send_all(b"PONG\r\n")


@asynccontextmanager
async def producer(store: Path) -> AsyncIterator[Producer]:
    """A producer on the broker that serves a store."""
    port = int((store / "port").read_text())
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        await stream.send_all(b'CONNECT {"verbose":false}\r\nSUB bench.answer 1\r\n')
        made = Producer(stream)
        nursery.start_soon(made.read_answers)
        yield made
        nursery.cancel_scope.cancel()
