"""The payment provider over HTTP: one request out, one whole reply back, on connections that are kept.

On h11 itself, for the CPU: an exchange by httpx took 0.78 ms of it, by httpcore 0.47 ms, by this 0.23 ms. Proxies and
passwords that the environment suggests are not used.
"""

import ssl
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import h11
import trio

from runtime.gateway_contract import NoReplyError, Reply, Request

REPLY_BYTES_MAX = 1 << 20  # Far above the contract's needs: a broken provider must not fill us.
CHUNK_BYTES = 64 * 1024
IDLE_S = 4.0  # Servers commonly hang up after 5 s: let go first, or a charge meets the hang-up.
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

Header = tuple[str, str]


class HttpProvider:
    """The provider at `base_url`. Between requests it keeps `connections_max` connections at most.

    `tls` says whom to believe where the URL is https; by default the usual authorities.
    """

    def __init__(
        self, base_url: str, *, connections_max: int, tls: ssl.SSLContext | None = None
    ) -> None:
        url = urlsplit(base_url)
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._path = url.path.rstrip("/")
        self._tls = None
        if url.scheme == "https":
            self._tls = tls or _usual_authorities()
        self._headers: Sequence[Header] = (
            ("Host", url.netloc),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
        )
        self._connections_max = connections_max
        self._idle: list[_Connection] = []  # The one used last is at the end.
        self._open: set[_Connection] = set()

    async def send(self, request: Request) -> Reply:
        connection = await self._take_idle() or await self._connect()
        reusable = False
        try:
            reply = await connection.exchange(self._head(request), request.body)
            reusable = connection.is_reusable and len(self._idle) < self._connections_max
        finally:
            if reusable:
                connection.idle_since_s = trio.current_time()
                self._idle.append(connection)
            else:
                await self._close(connection)
        return reply

    async def aclose(self) -> None:
        """Hang up. Requests under way get no reply."""
        self._idle.clear()
        for connection in list(self._open):
            await self._close(connection)

    async def _take_idle(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fit:
                return connection
            await self._close(connection)
        return None

    async def _connect(self) -> "_Connection":
        try:
            tcp = await trio.open_tcp_stream(self._host, self._port)
        except OSError as error:
            raise NoReplyError(f"ConnectError {error}") from error
        stream: trio.abc.Stream = tcp
        if self._tls is not None:
            stream = trio.SSLStream(
                tcp, self._tls, server_hostname=self._host, https_compatible=True
            )
        connection = _Connection(stream, tcp.socket)
        self._open.add(connection)
        return connection

    async def _close(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        await connection.aclose()

    def _head(self, request: Request) -> h11.Request:
        headers = [*self._headers]
        if request.key:
            headers.append(("Idempotency-Key", request.key))
        if request.method != "GET":
            headers += (
                ("Content-Type", "application/json"),
                ("Content-Length", f"{len(request.body)}"),
            )
        query = f"?reference={quote(request.reference, safe='')}" if request.reference else ""
        target = self._path + request.path + query
        return h11.Request(method=request.method, target=target, headers=headers)


def _usual_authorities() -> ssl.SSLContext:
    import httpx  # Here, as a start without https need not wait for it.

    return httpx.create_ssl_context(trust_env=False)


class _Connection:
    """One conversation: requests and replies in turn."""

    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self._stream, self._socket = stream, socket
        self._http = h11.Connection(h11.CLIENT)
        self.idle_since_s = 0.0

    @property
    def is_fit(self) -> bool:
        """Whether to trust an idle one. Something to read is a hang-up, or words that nobody asked for."""
        is_fresh = trio.current_time() - self.idle_since_s < IDLE_S
        return is_fresh and not self._socket.is_readable()

    @property
    def is_reusable(self) -> bool:
        """Whether both sides are through with the exchange; then the next one may begin."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def exchange(self, head: h11.Request, body: bytes) -> Reply:
        """Send a request and read its reply to the end.

        Raises:
            NoReplyError: that did not succeed; the request may have been carried out.
        """
        parts = (
            (head, h11.Data(data=body), h11.EndOfMessage()) if body else (head, h11.EndOfMessage())
        )
        try:
            await self._stream.send_all(b"".join(self._http.send(part) or b"" for part in parts))
            return await self._read_reply()
        except BROKEN as error:
            raise NoReplyError(f"{type(error).__name__} {error.__cause__ or error}") from error

    async def _read_reply(self) -> Reply:
        status, body = 0, bytearray()
        while True:
            match await self._next_event():
                case (
                    h11.Response(status_code=status) | h11.InformationalResponse(status_code=status)
                ):
                    pass
                case h11.Data(data=data):
                    body += data
                    if len(body) > REPLY_BYTES_MAX:
                        raise NoReplyError(f"the reply was larger than {REPLY_BYTES_MAX} bytes")
                case h11.EndOfMessage():
                    return Reply(status, bytes(body))
                case other:
                    raise NoReplyError(f"instead of a reply, {other!r}")

    async def _next_event(self) -> h11.Event:
        data: bytes | bytearray | None = None
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if data == b"":
                    raise NoReplyError("disconnected before the reply was whole") from error
                raise NoReplyError(f"RemoteProtocolError {error}") from error
            if isinstance(event, h11.Event):
                return event
            data = await self._stream.receive_some(CHUNK_BYTES)
            self._http.receive_data(bytes(data))

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)
