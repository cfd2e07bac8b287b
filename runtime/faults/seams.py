"""The seams of the system with points in them: the same log, provider, desk and connection, put in place by FAULTS=on.

What stands here is not there at all when faults are off.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Any

import trio

from actors.actor import Answer, Charge, Enquiry, Refund
from runtime.bridge import Address as BrokerAddress
from runtime.bridge import Bridge
from runtime.desk_types import Health, NewOrder, OrderDesk, Placed, Unavailable
from runtime.faults import points
from runtime.faults.fault import Occasion
from runtime.faults.hooks import owner_of, said_in
from runtime.faults.injector import Effect, Faults
from runtime.faults.points import Point
from runtime.gateway import NoReplyError, Provider
from runtime.gateway_contract import Reply, Request
from runtime.link import Message, OnLost, OnMessage, Subscription
from runtime.log import APPEND_S, BrokerLostError, Entry, FencedError, Log, Reader
from runtime.recall import JOURNALS


def breakable_bridge(address: BrokerAddress, name: str, faults: Faults | None) -> Bridge:
    return Bridge(address, name=name) if faults is None else FaultyBridge(address, name, faults)


def breakable_log(log: Log, faults: Faults | None) -> Log:
    return log if faults is None else FaultyLog(log, faults)


def breakable_provider(provider: Provider, faults: Faults | None) -> Provider:
    return provider if faults is None else FaultyProvider(provider, faults)


def breakable_desk(desk: OrderDesk, faults: Faults | None) -> OrderDesk:
    return desk if faults is None else FaultyDesk(desk, faults)


class FaultyLog:
    """A log with points around its appends, reads and views. It keeps the contract, failures included."""

    def __init__(self, log: Log, faults: Faults) -> None:
        self._log, self._faults = log, faults

    @property
    def payload_bytes_max(self) -> int:
        return self._log.payload_bytes_max

    async def append(
        self,
        subject: str,
        payload: bytes,
        *,
        expect: int | None = None,
        headers: Mapping[str, str] | None = None,
        cancellable: bool = False,
    ) -> int:
        with trio.move_on_after(APPEND_S, shield=not cancellable):
            return await self._append(subject, payload, expect, headers)
        raise BrokerLostError(f"no answer to an append within {APPEND_S:g} s (injected)")

    async def _append(
        self, subject: str, payload: bytes, expect: int | None, headers: Mapping[str, str] | None
    ) -> int:
        effect = await self._at_append(points.BEFORE_LOG_APPEND, subject, payload)
        if effect is Effect.DROP:
            raise BrokerLostError(f"an append on {subject} was dropped on its way (injected)")
        seq = await self._log.append(subject, payload, expect=expect, headers=headers)
        if effect is Effect.DUPLICATE:
            with suppress(FencedError):  # What the fence is for.
                await self._log.append(subject, payload, expect=expect, headers=headers)
        if await self._at_append(points.AFTER_LOG_APPEND, subject, payload) is Effect.DROP:
            raise BrokerLostError(
                f"the answer to an append on {subject} was dropped on its way (injected)"
            )
        return seq

    async def _at_append(self, point: Point, subject: str, payload: bytes) -> Effect:
        if not self._faults.wants(point):
            return Effect.NONE
        address = owner_of(subject)
        if address is None:
            return await self._faults.reach(Occasion(point))
        about = said_in(payload) if subject.startswith(JOURNALS) else ()
        return await self._faults.reach(Occasion(point, *address, about))

    @asynccontextmanager
    async def read(self, after: int, subjects: Sequence[str]) -> AsyncIterator["FaultyReader"]:
        async with self._log.read(after, subjects) as reader:
            yield FaultyReader(reader, self._faults)

    async def last(self, subject: str) -> Entry | None:
        return await self._log.last(subject)

    async def first_seq(self) -> int:
        return await self._log.first_seq()

    async def last_seq(self) -> int:
        return await self._log.last_seq()

    async def put_snapshot(self, name: str, data: bytes) -> None:
        await self._log.put_snapshot(name, data)

    async def get_snapshot(self, name: str) -> bytes | None:
        return await self._log.get_snapshot(name)

    async def put_views(self, views: Mapping[str, bytes]) -> None:
        await self._at_views(points.BEFORE_VIEWS, views)
        await self._log.put_views(views)
        await self._at_views(points.AFTER_VIEWS, views)

    async def _at_views(self, point: Point, views: Mapping[str, bytes]) -> None:
        if self._faults.wants(point):
            about = tuple(("", order_id) for order_id in views)
            if await self._faults.reach(Occasion(point, about=about)) is Effect.DROP:
                raise BrokerLostError("views of orders were dropped on their way (injected)")

    async def claim_views(self) -> None:
        await self._log.claim_views()

    async def get_view(self, order_id: str) -> bytes | None:
        return await self._log.get_view(order_id)


class FaultyReader:
    """A reader with a point on either side of each wait for entries."""

    def __init__(self, reader: Reader, faults: Faults) -> None:
        self._reader, self._faults = reader, faults
        self.backlog = reader.backlog

    async def take(self) -> Sequence[Entry]:
        await self._pass(points.BEFORE_TAKE)
        entries = await self._reader.take()
        await self._pass(points.AFTER_TAKE)
        return entries

    async def _pass(self, point: Point) -> None:
        if self._faults.wants(point) and await self._faults.reach(Occasion(point)) is Effect.DROP:
            raise BrokerLostError("entries were dropped on their way (injected)")


class FaultyBridge(Bridge):
    """A connection that can lose records on their way to a reader, or bring them twice."""

    def __init__(self, address: BrokerAddress, name: str, faults: Faults) -> None:
        super().__init__(address, name=name)
        self._faults = faults

    def subscribe(self, subject: str, on_message: OnMessage, on_lost: OnLost) -> Subscription:
        def pass_on(message: Message) -> None:
            effect = Effect.NONE
            address = owner_of(message.subject.decode(errors="replace"))
            if address is not None and self._faults.wants(points.WIRE_MESSAGE):
                effect = self._faults.reach_at_once(Occasion(points.WIRE_MESSAGE, *address))
            if effect is not Effect.DROP:
                on_message(message)
            if effect is Effect.DUPLICATE:
                on_message(message)

        return super().subscribe(subject, pass_on, on_lost)


class FaultyProvider:
    """A payment provider with a point on either side of each request."""

    def __init__(self, provider: Provider, faults: Faults) -> None:
        self._provider, self._faults = provider, faults

    async def send(self, request: Request) -> Reply:
        effect = await self._pass(points.BEFORE_REQUEST, request)
        if effect is Effect.DROP:
            raise NoReplyError("the request was dropped on its way (injected)")
        reply = await self._provider.send(request)
        if effect is Effect.DUPLICATE:
            reply = await self._provider.send(request)
        if await self._pass(points.AFTER_REQUEST, request) is Effect.DROP:
            raise NoReplyError("the reply was dropped on its way (injected)")
        return reply

    async def _pass(self, point: Point, request: Request) -> Effect:
        if not self._faults.wants(point):
            return Effect.NONE
        call = Enquiry if request.reference else Refund if request.path == "/refunds" else Charge
        order_id = request.reference or request.key.rpartition(":")[0]
        return await self._faults.reach(
            self._faults.occasion(point, "payment", call.__name__, order_id)
        )


class FaultyDesk:
    """The front desk with a point before each request is put to a shard, and one before its answer is sent."""

    def __init__(self, desk: OrderDesk, faults: Faults) -> None:
        self._desk, self._faults = desk, faults

    async def place(self, order: NewOrder, *, traceparent: str | None) -> Placed:
        if await self._before("OrderCreated", order.order_id) is Effect.DUPLICATE:
            await self._desk.place(order, traceparent=traceparent)
        placed = await self._desk.place(order, traceparent=traceparent)
        await self._after("OrderCreated", order.order_id)
        return placed

    async def cancel(self, order_id: str, *, traceparent: str | None) -> Answer:
        if await self._before("CancelAsked", order_id) is Effect.DUPLICATE:
            await self._desk.cancel(order_id, traceparent=traceparent)
        heard = await self._desk.cancel(order_id, traceparent=traceparent)
        await self._after("CancelAsked", order_id)
        return heard

    async def _before(self, fact: str, order_id: str) -> Effect:
        effect = await self._pass(points.BEFORE_ASK, fact, order_id)
        if effect is Effect.DROP:
            raise Unavailable("the request was dropped on its way (injected)")
        return effect

    async def _after(self, fact: str, order_id: str) -> None:
        if await self._pass(points.BEFORE_ANSWER, fact, order_id) is Effect.DROP:
            raise Unavailable("the answer was dropped on its way (injected)")

    async def _pass(self, point: Point, fact: str, order_id: str) -> Effect:
        if not self._faults.wants(point):
            return Effect.NONE
        return await self._faults.reach(self._faults.occasion(point, "order", fact, order_id))

    # --- what has no points ---

    async def retry(self, order_id: str, *, traceparent: str | None) -> Answer:
        return await self._desk.retry(order_id, traceparent=traceparent)

    async def view(self, order_id: str) -> bytes | None:
        return await self._desk.view(order_id)

    @property
    def is_open(self) -> bool:
        return self._desk.is_open

    def admit(self, order_id: str) -> None:
        self._desk.admit(order_id)

    def watching(self, order_id: str, tell: Callable[[], None]) -> AbstractContextManager[None]:
        return self._desk.watching(order_id, tell)

    async def wait_terminal(self, order_id: str, timeout_s: float) -> bytes | None:
        return await self._desk.wait_terminal(order_id, timeout_s)

    async def set_stock(self, levels: Mapping[str, int]) -> Mapping[str, Answer]:
        return await self._desk.set_stock(levels)

    async def stock(self) -> Mapping[str, Any]:
        return await self._desk.stock()

    def health(self) -> Health:
        return self._desk.health()

    def tree(self) -> Any:
        return self._desk.tree()
