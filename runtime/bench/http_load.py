"""The load over HTTP: raw requests on plain sockets, since a client library would cost more than the server."""

import time
from collections.abc import Callable, Iterator

import trio

from runtime.bench.measured import InstanceDiedError

Body = Callable[[int], bytes]


async def post_all(port: int, numbers: range, connections: int, body: Body) -> list[float]:
    """POST /orders once for each number, over so many connections, each with one request at a time.

    Returns:
        the milliseconds that each took, in order.

    Raises:
        InstanceDiedError: an answer was not 202.
    """
    took_ms: list[float] = []
    ahead = iter(numbers)
    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(_post_some, port, ahead, body, took_ms)
    return sorted(took_ms)


async def _post_some(port: int, numbers: Iterator[int], body: Body, took_ms: list[float]) -> None:
    while await _was_hung_up_on(port, numbers, body, took_ms):
        pass


async def _was_hung_up_on(
    port: int, numbers: Iterator[int], body: Body, took_ms: list[float]
) -> bool:
    """Post over one connection; whether the server closed it before all was posted."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for number in numbers:
            started_s = time.perf_counter()
            await stream.send_all(_request(number, body(number)))
            is_last = await _read_accepted(stream)
            took_ms.append((time.perf_counter() - started_s) * 1e3)
            if is_last:
                return True
    return False


def key_of(number: int) -> str:
    """The Idempotency-Key of an order."""
    return f"bench-{number}"


def _request(number: int, body: bytes) -> bytes:
    return (
        b"POST /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Idempotency-Key: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (key_of(number).encode(), len(body), body)
    )


async def _read_accepted(stream: trio.SocketStream) -> bool:
    """Whether the server closes the connection after this answer, as it does after some hundreds of them."""
    received = b""
    while chunk := await stream.receive_some(16384):
        received += chunk
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            continue
        if head[9:12] != b"202":
            raise InstanceDiedError(f"answered with {received[:300].decode(errors='replace')}")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        if len(rest) >= int(length):
            return b"connection: close" in head.lower()
    raise InstanceDiedError("the server hung up")
