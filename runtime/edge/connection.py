"""One client's connection: hypercorn's HTTP/1.1 over a socket, with a limit to every size and every wait.

Hypercorn 0.18 by itself hands the application a request before its body is there, answers `Expect: 100-continue`
before the application could refuse, waits for ever for a body and for a client that does not read its answer, and turns
itself into HTTP/2 on the plain port. So this reads whole requests, refuses early, and speaks HTTP/1.1 alone:
an `Upgrade` header is ignored, as RFC 9110 allows, and the HTTP/2 preface is one more unknown version.

The task that reads a request has it answered, too, and then reads on. What comes meanwhile stays where it is.
"""

from collections.abc import Callable
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ConnectionState, WorkerContext
from hypercorn.utils import parse_socket_addr

from runtime.edge.exchange import Exchange
from runtime.edge.head import body_too_large, refuse_head
from runtime.edge.headers import trace_id, valid_traceparent
from runtime.edge.limits import Limits
from runtime.edge.problems import MEDIA_TYPE, Problem
from runtime.edge.wire import Wire


class Connection(H11Protocol):
    """Reads requests, has the application answer them one at a time, and lets go in time."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        wire: Wire,
        limits: Limits,
        on_idle: Callable[["Connection", bool], None],
    ) -> None:
        client = parse_socket_addr(wire.family, wire.client)
        server = parse_socket_addr(wire.family, wire.server)
        state, unused = ConnectionState({}), TaskGroup()  # Each request has an Exchange instead.
        super().__init__(app, config, context, unused, state, False, client, server, self._perform)
        self._wire = wire
        self._limits = limits
        self._on_idle = on_idle
        self._reading = trio.CancelScope()
        self._deadline = 0.0
        self._request: h11.Request | None = None  # Its head is here, its body is still coming.
        self._body = bytearray()
        self._chunks = 0
        self._head = b""  # Of an answer, until its body follows: one packet instead of two.
        self._hung_up = False

    async def run(self) -> None:
        """Serve this client until it is gone, is silent for too long, or breaks the rules."""
        try:
            self._rest()
            await self._read()
        finally:
            self._wire.close()

    async def turn_away(self, problem: Problem) -> None:
        """Answer before anything is asked, and close."""
        try:
            await self._refuse(problem)
            await self._read()
        finally:
            self._wire.close()

    def dismiss(self) -> None:
        """Close an idle connection now."""
        self._expect_within(0)
        self._reading.deadline = self._deadline

    async def _read(self) -> None:
        while True:
            data = b""
            with trio.CancelScope(deadline=self._deadline) as self._reading:
                data = await self._wire.read()
            if self._reading.cancelled_caught:
                if self._hung_up or self._request is None:
                    return
                silence = f"The body did not arrive within {self._limits.body_s:g} s."
                await self._refuse(Problem(408, silence))
                continue
            if not self._hung_up:
                self.connection.receive_data(data)
                await self._handle_events()
            if not data:
                return

    async def _handle_events(self) -> None:
        while not self._hung_up:
            unread = b"" if self._request else self.connection.trailing_data[0]
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(self._unreadable(error))
                return
            match event:
                case h11.Request():
                    left = len(self.connection.trailing_data[0])
                    await self._begin(event, unread[: len(unread) - left])
                case h11.Data():
                    await self._gather(event.data)
                case h11.EndOfMessage():
                    await self._hand_over()
                    if not self.connection.trailing_data[0]:
                        return
                    # Who sends many at once is one client among others.
                    await trio.lowlevel.checkpoint()
                case _:
                    return

    async def _begin(self, request: h11.Request, raw_head: bytes) -> None:
        self._request = request
        self._on_idle(self, False)
        self._expect_within(self._limits.body_s)
        problem = refuse_head(request, raw_head, self._limits)
        if problem is not None:
            await self._refuse(problem)
        elif self.connection.they_are_waiting_for_100_continue:
            await self._write(
                self._bytes_of(h11.InformationalResponse(status_code=100, headers=[]))
            )

    async def _gather(self, data: bytes) -> None:
        self._body += data
        self._chunks += 1
        if len(self._body) > self._limits.body_bytes_max:
            await self._refuse(body_too_large(self._limits))
        elif self._chunks > self._limits.chunks_max:
            await self._refuse(Problem(413, "The body comes in too many pieces; send larger ones."))

    async def _hand_over(self) -> None:
        """Have the application answer the whole request, however long it takes: its own limits apply."""
        assert self._request is not None
        request, exchange = self._request, Exchange(bytes(self._body), self._wait_gone)
        self._request, self._body, self._chunks = None, bytearray(), 0
        self.keep_alive_requests += 1
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            exchange,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        await exchange.run()
        if not self._hung_up:
            self._rest()

    async def _wait_gone(self) -> None:
        """Wait for the client to go. Once the next request is here, that cannot be told before it has been read."""
        data = await self._wire.read()
        if data:
            self.connection.receive_data(data)
            await self._wire.closed.wait()

    async def stream_send(self, event: StreamEvent) -> None:
        match event:
            case Response(status_code=status, headers=headers):
                last = self.keep_alive_requests >= self.config.keep_alive_max_requests
                if last or self.context.terminated.is_set():
                    headers = [*headers, (b"connection", b"close")]
                headers = [*headers, *self.config.response_headers("h11")]
                self._head = self._bytes_of(h11.Response(status_code=status, headers=headers))
            case Body(data=data):
                await self._write(self._take_head() + self._bytes_of(h11.Data(data=data)))
            case EndBody():
                await self._write(self._take_head() + self._bytes_of(h11.EndOfMessage()))
            case StreamClosed():
                await self._maybe_recycle()

    async def _refuse(self, problem: Problem) -> None:
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._write(self._answer(problem))
        await self._hang_up()

    def _answer(self, problem: Problem) -> bytes:
        values = [] if self._request is None else self._traceparents(self._request)
        body = problem.body(trace_id(valid_traceparent(values)))
        headers = [
            ("content-type", MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("connection", "close"),
            *problem.headers.items(),
        ]
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        head = h11.Response(
            status_code=problem.status, headers=encoded + self.config.response_headers("h11")
        )
        if self._request is not None and self._request.method == b"HEAD":
            body = b""
        return b"".join(map(self._bytes_of, (head, h11.Data(data=body), h11.EndOfMessage())))

    def _traceparents(self, request: h11.Request) -> list[str]:
        return [
            value.decode("latin-1") for name, value in request.headers if name == b"traceparent"
        ]

    def _unreadable(self, error: h11.RemoteProtocolError) -> Problem:
        status = error.error_status_hint
        if status == 431 and b"\n" not in self.connection.trailing_data[0]:
            return Problem(414, f"The URL is longer than {self._limits.target_bytes_max} bytes.")
        return Problem(status, f"This is no HTTP/1.1 request: {error}.")

    async def _perform(self, event: Event) -> None:
        """What hypercorn's protocol asks of its connection."""
        if isinstance(event, Closed):
            await self._hang_up()

    def _rest(self) -> None:
        self._expect_within(self._limits.head_s)
        self._on_idle(self, True)

    def _expect_within(self, delay_s: float) -> None:
        self._deadline = trio.current_time() + delay_s

    def _bytes_of(self, event: Any) -> bytes:
        try:
            return self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return b""  # The client broke the rules meanwhile; there is no answer to that.

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        return head

    async def _write(self, data: bytes) -> None:
        if data:
            await self._wire.write(data, self._limits.write_s)
            self._hung_up |= not self._wire.is_open  # Too slow, or gone.

    async def _hang_up(self) -> None:
        """Say that nothing follows, and read on for a moment: closing on unread bytes would reset what we said."""
        self._hung_up = True
        self._expect_within(self._limits.linger_s)
        self._wire.end_writing()
