"""An in-memory desk with the manners of the real one, and ways to talk to the edge in front of it."""

import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import trio

from actors.actor import Answer, Outcome
from runtime.desk_types import Health, NewOrder, Placed, Unavailable
from runtime.edge import Limits, admin_app, public_app, serve

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

ORDER = {
    "customer_id": "17850",
    "currency": "GBP",
    "items": [{"sku": "85123A", "quantity": 6, "unit_price_minor": 255}],
    "payment_token": "tok_ok",
}

WELL = Health(connected=True, ready=True, started=True)

Serve = Callable[..., Awaitable[int]]
Talk = Callable[..., Awaitable["Reply"]]


@dataclass
class FakeDesk:
    """Keeps orders in a dict. A test sets `unavailable`, `stuck` or `broken` for what cannot be had otherwise."""

    orders: dict[str, NewOrder] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)
    traceparents: list[str | None] = field(default_factory=list)
    state: Health = WELL
    unavailable: Unavailable | None = None
    stuck: bool = False
    broken: bool = False
    overloaded: bool = False
    watchers: list[Callable[[], None]] = field(default_factory=list)
    becomes: str = "confirmed"
    becomes_after_s: float = 0.0

    async def place(self, order: NewOrder, *, traceparent: str | None) -> Placed:
        await self._cross()
        self.traceparents.append(traceparent)
        known = self.orders.setdefault(order.order_id, order)
        if known != order:
            return Placed(order.order_id, Outcome.REUSED, "")
        status = self.statuses.setdefault(order.order_id, "pending")
        return Placed(order.order_id, Outcome.DONE, status)

    async def cancel(self, order_id: str, *, traceparent: str | None) -> Answer:
        await self._cross()
        match self.statuses.get(order_id):
            case None:
                return Answer(Outcome.UNKNOWN)
            case "confirmed" | "rejected" as status:
                return Answer(Outcome.TOO_LATE, status)
            case "reserved":
                return Answer(Outcome.DONE, "reserved")
        self.statuses[order_id] = "cancelled"
        return Answer(Outcome.DONE, "cancelled")

    async def retry(self, order_id: str, *, traceparent: str | None) -> Answer:
        await self._cross()
        status = self.statuses.get(order_id)
        if status is None:
            return Answer(Outcome.UNKNOWN)
        if status != "needs_attention":
            return Answer(Outcome.TOO_LATE, status)
        self.statuses[order_id] = "reserved"
        return Answer(Outcome.DONE, "reserved")

    async def view(self, order_id: str) -> bytes | None:
        await self._cross()
        if order_id not in self.statuses:
            return None
        order = self.orders[order_id]
        at = "2011-12-09T12:50:00.000+00:00"
        status = self.statuses[order_id]
        return json.dumps(
            {
                "order_id": order_id,
                "status": status,
                "reason": None,
                "customer_id": order.customer_id,
                "items": [
                    {"sku": i.sku, "quantity": i.quantity, "unit_price_minor": i.unit_price_minor}
                    for i in order.items
                ],
                "total": {"minor": order.total_minor, "currency": order.currency},
                "payment": {"status": "none", "charge_id": None, "refund_id": None},
                "reservation": {"status": "pending", "expires_at": at},
                "history": [{"at": at, "event": "OrderCreated", "status": "pending"}],
                "version": 1,
                "trace_id": None,
            }
        ).encode()

    @property
    def is_open(self) -> bool:
        return self.state.ready

    def admit(self, order_id: str) -> None:
        if self.overloaded:
            raise Unavailable("too much is going on")

    @contextmanager
    def watching(self, order_id: str, tell: Callable[[], None]) -> Iterator[None]:
        self.watchers.append(tell)
        try:
            yield
        finally:
            self.watchers.remove(tell)

    async def wait_terminal(self, order_id: str, timeout_s: float) -> bytes | None:
        await trio.sleep(min(timeout_s, self.becomes_after_s))
        if self.becomes_after_s <= timeout_s:
            self.statuses[order_id] = self.becomes
        return await self.view(order_id)

    async def set_stock(self, levels: Mapping[str, int]) -> Mapping[str, Answer]:
        await self._cross()
        held = {sku: n for sku, n in levels.items() if sku == "HELD" and n < 5}
        self.levels |= {sku: n for sku, n in levels.items() if sku not in held}
        below = Answer(Outcome.INVALID, detail="5 are reserved")
        return {sku: below if sku in held else Answer(Outcome.DONE) for sku in levels}

    async def stock(self) -> Mapping[str, Any]:
        await self._cross()
        return {
            sku: {"initial": n, "on_hand": n, "reserved": 0, "available": n, "sold": 0}
            for sku, n in self.levels.items()
        }

    def health(self) -> Health:
        return self.state

    def tree(self) -> Any:
        return {"name": "root", "children": [{"name": "order-0", "state": "running"}]}

    async def _cross(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.stuck:
            await trio.sleep_forever()
        if self.broken:
            raise RuntimeError("secret_token_123")
        if self.unavailable is not None:
            raise self.unavailable


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json", self
        return json.loads(self.body)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def order() -> dict[str, Any]:
    """A fresh valid body, to be spoiled by the test."""
    copied: dict[str, Any] = json.loads(json.dumps(ORDER))
    return copied


@pytest.fixture
def traceparent() -> str:
    return TRACEPARENT


@pytest.fixture
async def client(desk: FakeDesk) -> AsyncIterator[httpx.AsyncClient]:
    """Talks to the public application in this process, without a socket."""
    transport = httpx.ASGITransport(public_app(desk), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        yield client


@pytest.fixture
async def admin(desk: FakeDesk) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(admin_app(desk), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


@pytest.fixture
def serve_edge(nursery: trio.Nursery, desk: FakeDesk) -> Serve:
    """Serves an application (the public one) on a loopback port, which it returns."""

    async def start(app: Any = None, limits: Limits | None = None) -> int:
        app = app or public_app(desk)
        task = functools.partial(serve, app, "127.0.0.1:0", limits=limits)
        [address] = await nursery.start(task)
        return int(address.rpartition(":")[2])

    return start


@pytest.fixture
def talk() -> Talk:
    """Sends bytes as they are and reads one answer; `closed` says whether the server hung up after it."""

    async def exchange(port: int, sent: bytes, *, half_close: bool = False) -> Reply:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(sent)
            if half_close:
                await stream.send_eof()
            return await read_reply(stream)

    return exchange


@pytest.fixture
def read() -> Callable[[trio.SocketStream], Awaitable[Reply]]:
    return read_reply


async def read_reply(stream: trio.SocketStream) -> Reply:
    with trio.fail_after(5):
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += await _some(stream)
        head, _, body = seen.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += await _some(stream)
    closed = False
    with trio.move_on_after(0.05):
        closed = await stream.receive_some() == b""
    return Reply(int(status.split()[1]), headers, body, closed)


async def _some(stream: trio.SocketStream) -> bytes:
    data = bytes(await stream.receive_some())
    assert data, "the server hung up before it had answered"
    return data
