"""GET /orders/{id}/events: an order's history as server-sent events, what was and then what comes, until it is final.

Each line of the history is one event. Its id is its place in the history, so that a client which comes back with
`Last-Event-ID` misses nothing and hears nothing twice; one that has heard everything of a finished order gets 204,
which tells an EventSource to stay away. A stream is a way of looking: nothing that becomes of it touches the order.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from actors.order_state import TERMINAL
from runtime.desk_types import OrderDesk, Unavailable
from runtime.edge.answers import no_such_order, order_id_of

STREAMS_MAX = 200  # A quarter of the connections that the server takes.
HEARTBEAT_S = (
    15.0  # Below the minute after which proxies commonly take a silent connection for dead.
)
FIRST_WITHIN_S = 2.0
COME_BACK_MS = 1_000
EVENT_ID_CHARS_MAX = 9

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep the events until there are enough of them.
]


class _Page(msgspec.Struct):
    """What matters here of an order's public JSON."""

    status: str
    history: list[dict[str, Any]] = []

    @property
    def is_final(self) -> bool:
        return self.status in TERMINAL


_decode = msgspec.json.Decoder(_Page).decode


class Events:
    """The handler, and the number of streams that are open."""

    def __init__(
        self, desk: OrderDesk, *, streams_max: int = STREAMS_MAX, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._desk, self._streams_max, self._heartbeat_s = desk, streams_max, heartbeat_s
        self._open = 0

    async def show(self, request: Request) -> Response:
        order_id, heard = order_id_of(request), last_event_id(request)
        if not self._desk.is_open:
            raise Unavailable("not open for streams now")
        if self._open >= self._streams_max:
            raise Unavailable("too many streams of events are open", retry_after_s=5)
        page = await self._page(order_id)
        if page is None:
            raise no_such_order()
        if page.is_final and heard >= len(page.history):
            return Response(status_code=204)
        return _Stream(lambda send: self._follow(order_id, heard, send))

    async def _page(self, order_id: str) -> _Page | None:
        with trio.move_on_after(FIRST_WITHIN_S):
            view = await self._desk.view(order_id)
            return None if view is None else _decode(view)
        raise Unavailable("no answer in time")

    async def _follow(self, order_id: str, heard: int, send: Callable[[bytes], Any]) -> None:
        """Send what is new each time that something may be, until nothing can be any more."""
        self._open += 1
        changed = trio.Event()

        def tell() -> None:
            changed.set()

        try:
            with self._desk.watching(order_id, tell):
                await send(b"retry: %d\n\n" % COME_BACK_MS)
                while self._desk.is_open:
                    changed = trio.Event()
                    page = await self._page(order_id)
                    if page is None:
                        return
                    await send(_encode(order_id, page, heard) or b": still here\n\n")
                    heard = max(heard, len(page.history))
                    if page.is_final:
                        return
                    with trio.move_on_after(self._heartbeat_s):
                        await changed.wait()
        except Unavailable:
            return  # The client comes back with the id of what it heard last.
        finally:
            self._open -= 1


class _Stream(Response):
    """An answer that goes on until it has been said, the client has gone, or the server stops."""

    def __init__(self, say: Callable[[Callable[[bytes], Any]], Any]) -> None:
        super().__init__()
        self._say = say

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_when_gone, receive, nursery.cancel_scope)
            await self._say(send_chunk)
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _end_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def last_event_id(request: Request) -> int:
    """How many lines of the history a client has heard already; 0 where it says nothing that we gave out."""
    said = request.headers.get("last-event-id", "")
    is_ours = said.isascii() and said.isdigit() and len(said) <= EVENT_ID_CHARS_MAX
    return int(said) if is_ours else 0


def _encode(order_id: str, page: _Page, heard: int) -> bytes:
    return b"".join(
        b"id: %d\nevent: %b\ndata: %b\n\n"
        % (number, str(line["event"]).encode(), msgspec.json.encode({"order_id": order_id, **line}))
        for number, line in enumerate(page.history, 1)
        if number > heard
    )
