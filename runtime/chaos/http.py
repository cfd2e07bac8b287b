"""An HTTP client for load: a request is sent once, within a time, and what came of it is told; nothing is repeated.

Lighter than a general client, because it shares the machine with what it measures, and strict about what is known: a
connection that breaks gives `NoAnswerError`, whatever may have happened at the other end.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import h11
import msgspec
import trio

CHUNK_BYTES = 65_536
IDLE_S = 2.0  # Servers commonly hang up after 5 s: let go first.
JSON = (("Content-Type", "application/json"),)


class NoAnswerError(Exception):
    """Refused, cut off, or too late: nobody knows whether it was done."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def retry_after_s(self) -> float | None:
        text = self.headers.get(b"retry-after", b"")
        return float(text) if text.isdigit() else None


class Http:
    """Keeps the connections that are worth keeping."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[_Connection]] = defaultdict(list)

    async def ask(
        self,
        method: str,
        address: str,
        path: str,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
        *,
        within_s: float = 4.0,
    ) -> Answer:
        """Send one request to `host:port`.

        Raises:
            NoAnswerError: there was no whole answer.
        """
        with trio.move_on_after(within_s):
            return await self._exchange(method, address, path, body, headers)
        raise NoAnswerError(f"no answer within {within_s:g} s")

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                await connection.close()
        self._idle.clear()

    async def _exchange(
        self,
        method: str,
        address: str,
        path: str,
        body: bytes,
        headers: Iterable[tuple[str, str]],
    ) -> Answer:
        connection = None
        try:
            connection = await self._take_idle(address) or await _connect(address)
            answer = await connection.exchange(
                h11.Request(
                    method=method,
                    target=path,
                    headers=[("Host", address), ("Content-Length", str(len(body))), *headers],
                ),
                body,
            )
        except (OSError, trio.BrokenResourceError, h11.ProtocolError, EOFError) as error:
            if connection is not None:
                await connection.close()
            raise NoAnswerError(f"{type(error).__name__} {error}".strip()) from error
        except trio.Cancelled:
            if connection is not None:
                await connection.close()
            raise
        if connection.reusable:
            connection.used_s = trio.current_time()
            self._idle[address].append(connection)
        else:
            await connection.close()
        return answer

    async def _take_idle(self, address: str) -> "_Connection | None":
        """The connection used last; none that its server may be about to close."""
        idle = self._idle[address]
        if idle and trio.current_time() - idle[-1].used_s < IDLE_S:
            return idle.pop()
        while idle:
            await idle.pop().close()
        return None


async def _connect(address: str) -> "_Connection":
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    return _Connection(stream)


class _Connection:
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.used_s = 0.0
        self._h11 = h11.Connection(h11.CLIENT)

    async def exchange(self, request: h11.Request, body: bytes) -> Answer:
        sent = self._h11.send(request) or b""
        if body:
            sent += self._h11.send(h11.Data(body)) or b""
        sent += self._h11.send(h11.EndOfMessage()) or b""
        await self._stream.send_all(sent)
        head: h11.Response | None = None
        content = bytearray()
        while True:
            match self._h11.next_event():
                case h11.NEED_DATA:
                    self._h11.receive_data(await self._stream.receive_some(CHUNK_BYTES))
                case h11.Response() as head:
                    pass
                case h11.Data() as part:
                    content += part.data
                case h11.EndOfMessage():
                    assert head is not None
                    return Answer(head.status_code, dict(head.headers), bytes(content))
                case h11.ConnectionClosed() | h11.PAUSED:
                    raise EOFError("hung up")

    @property
    def reusable(self) -> bool:
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)
