"""Following an order over real HTTP: its history first, then what comes, until it is final."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import Route

from runtime.desk_types import Unavailable
from runtime.edge import public_app
from runtime.edge.answers import build_app
from runtime.edge.events import Events

Serve = Callable[..., Awaitable[int]]


class Told:
    """An order as the desk shows it, to which things happen."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._lines: list[dict[str, str]] = []
        desk.view = self._view

    def happens(self, event: str, status: str) -> None:
        self._lines.append(
            {"at": "2011-12-09T12:50:00.000+00:00", "event": event, "status": status}
        )
        for tell in self._desk.watchers:
            tell()

    async def _view(self, order_id: str) -> bytes | None:
        await self._desk._cross()
        if not self._lines:
            return None
        status = self._lines[-1]["status"]
        return json.dumps({"status": status, "history": self._lines}).encode()


@pytest.fixture
def told(desk: Any) -> Told:
    told = Told(desk)
    told.happens("OrderCreated", "pending")
    return told


class Follower:
    """Reads one stream, event by event. (httpx cannot leave one before its end without a warning.)"""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.answer: h11.Response
        self._stream, self._text = stream, ""
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, headers: list[tuple[str, str]]) -> None:
        request = h11.Request(
            method="GET", target="/orders/o1/events", headers=[("Host", "x"), *headers]
        )
        for event in (request, h11.EndOfMessage()):
            await self._stream.send_all(self._http.send(event) or b"")
        answer = await self._next_part()
        assert isinstance(answer, h11.Response)
        self.answer = answer

    def header(self, name: bytes) -> bytes:
        return dict(self.answer.headers)[name]

    async def next(self) -> dict[str, str]:
        """The fields of the next event, or comment; empty at the end of the stream."""
        while "\n\n" not in self._text:
            match await self._next_part():
                case h11.Data(data=data):
                    self._text += data.decode()
                case _:
                    return {}
        event, _, self._text = self._text.partition("\n\n")
        pairs = (line.partition(": ") for line in event.split("\n"))
        return {name or "comment": value for name, _, value in pairs}

    async def _next_part(self) -> object:
        with trio.fail_after(3):
            while (part := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._stream.receive_some())
        return part

    async def statuses(self, count: int) -> list[str]:
        events: list[str] = []
        while len(events) < count:
            fields = await self.next()
            if "data" in fields:
                events.append(json.loads(fields["data"])["status"])
        return events


@asynccontextmanager
async def following(port: int, *, last_event_id: str | None = None) -> AsyncIterator[Follower]:
    headers = [] if last_event_id is None else [("Last-Event-ID", last_event_id)]
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        follower = Follower(stream)
        await follower.ask(headers)
        yield follower


def events_app(desk: Any, **limits: Any) -> Starlette:
    return build_app([Route("/orders/{order_id}/events", Events(desk, **limits).show)])


async def test_what_was_comes_first_then_what_comes_and_the_stream_ends_when_all_is_said(
    serve_edge: Serve, told: Told
) -> None:
    async with following(await serve_edge()) as stream:
        assert stream.header(b"content-type") == b"text/event-stream; charset=utf-8"
        assert await stream.next() == {"retry": "1000"}
        first = await stream.next()
        assert (first["id"], first["event"]) == ("1", "OrderCreated")
        assert json.loads(first["data"])["order_id"] == "o1"
        told.happens("StockReserved", "reserved")
        assert await stream.statuses(1) == ["reserved"]
        told.happens("PaymentTaken", "confirmed")
        last = await stream.next()
        assert (last["id"], last["event"]) == ("3", "PaymentTaken")
        assert await stream.next() == {}


@pytest.mark.parametrize(
    ("last_event_id", "statuses"),
    [
        ("1", ["reserved", "confirmed"]),
        ("2", ["confirmed"]),
        ("0", ["pending", "reserved", "confirmed"]),
        ("what?", ["pending", "reserved", "confirmed"]),
        ("9" * 40, ["pending", "reserved", "confirmed"]),
    ],
)
async def test_who_comes_back_hears_what_was_missed(
    serve_edge: Serve, told: Told, last_event_id: str, statuses: list[str]
) -> None:
    told.happens("StockReserved", "reserved")
    told.happens("PaymentTaken", "confirmed")
    async with following(await serve_edge(), last_event_id=last_event_id) as stream:
        assert await stream.statuses(len(statuses)) == statuses
        assert await stream.next() == {}


async def test_who_has_heard_all_of_a_finished_order_is_told_to_stay_away(
    serve_edge: Serve, told: Told
) -> None:
    told.happens("OrderCancelled", "cancelled")
    async with following(await serve_edge(), last_event_id="2") as stream:
        assert stream.answer.status_code == 204


async def test_an_order_that_nobody_placed_has_no_stream(serve_edge: Serve, desk: Any) -> None:
    async with following(await serve_edge()) as stream:
        assert stream.answer.status_code == 404


async def test_a_silent_stream_beats_its_heart(serve_edge: Serve, desk: Any, told: Told) -> None:
    async with following(await serve_edge(events_app(desk, heartbeat_s=0.02))) as stream:
        await stream.statuses(1)
        assert await stream.next() == {"comment": "still here"}


async def test_streams_beyond_the_bound_are_asked_to_come_later_and_gone_ones_make_room(
    serve_edge: Serve, desk: Any, told: Told
) -> None:
    port = await serve_edge(events_app(desk, streams_max=1))
    async with following(port) as stream:
        await stream.statuses(1)
        async with following(port) as other:
            assert other.answer.status_code == 503
            assert other.header(b"retry-after") == b"5"
    with trio.fail_after(3):
        while desk.watchers:  # noqa: ASYNC110  # Sockets tell of a client that has gone, and no event.
            await trio.sleep(0.01)
    async with following(port) as stream:
        assert await stream.statuses(1) == ["pending"]


async def test_all_streams_end_when_the_desk_closes_and_none_is_opened_then(
    serve_edge: Serve, desk: Any, told: Told
) -> None:
    port = await serve_edge()
    async with following(port) as stream:
        await stream.statuses(1)
        desk.state = type(desk.state)(connected=True, ready=False, started=True)
        for tell in desk.watchers:
            tell()
        assert await stream.next() == {}
    async with following(port) as stream:
        assert stream.answer.status_code == 503


async def test_a_stream_ends_when_the_order_cannot_be_seen_any_more(
    serve_edge: Serve, desk: Any, told: Told
) -> None:
    async with following(await serve_edge()) as stream:
        await stream.statuses(1)
        desk.unavailable = Unavailable("not connected to the broker")
        told.happens("StockReserved", "reserved")
        assert await stream.next() == {}


async def test_an_order_is_shed_before_its_body_is_looked_at(
    desk: Any, order: dict[str, Any]
) -> None:
    desk.overloaded = True
    transport = httpx.ASGITransport(public_app(desk))
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as http:
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        answer = await http.post("/orders", content=b"not even JSON", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
