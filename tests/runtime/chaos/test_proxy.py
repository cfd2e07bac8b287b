"""What the proxy does to frames: between a client and an echo, over real sockets."""

import time
from collections.abc import AsyncIterator, Callable

import pytest
import trio

from runtime.chaos.conversation import Part, Toward
from runtime.chaos.nats_frames import NatsConversation
from runtime.chaos.proxy import (
    CUT_AFTER,
    CUT_BEFORE,
    DROP,
    DUPLICATE,
    FORWARD,
    EveryNth,
    Fate,
    Line,
    Passing,
    Proxy,
)


def pub(number: int, reply: str = "") -> bytes:
    return f"PUB a {reply} 1\r\n{number}\r\n".encode()


class Server:
    """Keeps what it receives, and says back whatever it is told to."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = trio.Event()
        self.heard = trio.Event()
        self.streams: list[trio.SocketStream] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        self.streams.append(stream)
        try:
            async for chunk in stream:
                self.received += chunk
                self.heard.set()
        except trio.BrokenResourceError:
            pass
        self.ended.set()

    async def wait_received(self, wanted: bytes) -> None:
        with trio.fail_after(5):
            while self.received != wanted:
                await self.heard.wait()
                self.heard = trio.Event()


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    return Server()


@pytest.fixture
async def proxy(nursery: trio.Nursery, server: Server) -> Proxy:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, server.serve, listeners)
    proxy = Proxy(("127.0.0.1", listeners[0].socket.getsockname()[1]), NatsConversation)
    await nursery.start(proxy.run)
    return proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        yield stream


def on_number(number: int, fate: Fate) -> Callable[[Passing], Fate]:
    return lambda passing: fate if passing.said.wire == pub(number) else FORWARD


@pytest.mark.parametrize(
    ("fate", "arrives"),
    [
        (FORWARD, [1, 2, 3]),
        (DROP, [1, 3]),
        (DUPLICATE, [1, 2, 2, 3]),
        (Fate(delay_s=0.05), [1, 2, 3]),
    ],
)
async def test_each_frame_meets_the_fate_that_the_rule_gives_it(
    proxy: Proxy, client: trio.SocketStream, server: Server, fate: Fate, arrives: list[int]
) -> None:
    proxy.rule = on_number(2, fate)
    await client.send_all(pub(1) + pub(2) + pub(3))
    await server.wait_received(b"".join(pub(number) for number in arrives))


@pytest.mark.parametrize(("fate", "arrives"), [(CUT_BEFORE, [1]), (CUT_AFTER, [1, 2])])
async def test_a_cut_lets_what_came_before_arrive_and_nothing_after(
    proxy: Proxy, client: trio.SocketStream, server: Server, fate: Fate, arrives: list[int]
) -> None:
    proxy.rule = on_number(2, fate)
    await client.send_all(pub(1) + pub(2) + pub(3))
    with trio.fail_after(5):
        await server.ended.wait()
        assert await ends(client)
    assert server.received == b"".join(pub(number) for number in arrives)


async def test_what_follows_a_frame_is_done_once_it_is_written(
    proxy: Proxy, client: trio.SocketStream, server: Server
) -> None:
    called = trio.Event()
    proxy.rule = on_number(1, Fate(then=called.set))
    await client.send_all(pub(1))
    with trio.fail_after(5):
        await called.wait()
    await server.wait_received(pub(1))


async def test_every_third_answer_to_a_publish_is_lost_and_nothing_else(
    proxy: Proxy, client: trio.SocketStream, server: Server
) -> None:
    rule = proxy.rule = EveryNth(3, Part.PUB_ACK, DROP)
    asked = b"".join(pub(n, f"in.{n}") for n in range(6))
    await client.send_all(asked)
    await server.wait_received(asked)
    said = [b"MSG in.%d 1 2\r\n{}\r\n" % n for n in range(6)]
    other = b"MSG else 2 $JS.ACK.O.r.1.1.1.1.0 2\r\n{}\r\n"
    await server.streams[0].send_all(other * 3 + b"".join(said))
    wanted = other * 3 + said[0] + said[1] + said[3] + said[4]
    assert await receive(client, len(wanted)) == wanted
    assert rule.fired == 2


async def test_latency_holds_everything_up_and_lets_it_travel_together(
    proxy: Proxy, client: trio.SocketStream, server: Server
) -> None:
    proxy.line = Line(latency_s=0.1, jitter_s=0.05)
    started = time.monotonic()
    for number in range(9):
        await client.send_all(pub(number))
        await trio.sleep(0.005)
    await server.wait_received(b"".join(pub(number) for number in range(9)))
    assert 0.09 < time.monotonic() - started < 0.7, "not a latency each"


async def test_bandwidth_is_shared_out_in_bytes_a_second(
    proxy: Proxy, client: trio.SocketStream, server: Server
) -> None:
    proxy.line = Line(bytes_per_s=50_000)
    frame = b"PUB a 10000\r\n%b\r\n" % bytes(10_000)
    started = time.monotonic()
    await client.send_all(frame)
    await server.wait_received(frame)
    assert time.monotonic() - started > 0.19


async def test_a_silent_proxy_accepts_and_says_nothing_until_it_speaks_again(
    proxy: Proxy, client: trio.SocketStream, server: Server
) -> None:
    await client.send_all(pub(1))
    await server.wait_received(pub(1))
    proxy.hush()
    await client.send_all(pub(2))
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port):
        await trio.sleep(0.05)
        assert server.received == pub(1)
        assert len(server.streams) == 1
        proxy.speak()
        await server.wait_received(pub(1) + pub(2))


async def test_a_half_closed_connection_goes_on_the_other_way(
    proxy: Proxy, client: trio.SocketStream, server: Server
) -> None:
    await client.send_all(pub(1))
    await server.wait_received(pub(1))
    assert proxy.half_close(Toward.CLIENT) == 1
    with trio.fail_after(5):
        assert await ends(client)
    await client.send_all(pub(2))
    await server.wait_received(pub(1) + pub(2))


async def test_all_connections_can_be_cut_at_once(
    proxy: Proxy, client: trio.SocketStream, server: Server
) -> None:
    await client.send_all(pub(1))
    await server.wait_received(pub(1))
    assert proxy.cut_all() == 1
    with trio.fail_after(5):
        assert await ends(client)
        await server.ended.wait()


async def test_a_client_that_does_not_speak_nats_is_cut_off(
    client: trio.SocketStream, server: Server
) -> None:
    await client.send_all(pub(1) + b"GET / HTTP/1.1\r\n\r\n")
    with trio.fail_after(5):
        assert await ends(client)


async def test_a_server_that_is_down_looks_down(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    proxy = Proxy(("127.0.0.1", port), NatsConversation)
    await nursery.start(proxy.run)
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as client:
        with trio.fail_after(5):
            assert await ends(client)


async def receive(stream: trio.SocketStream, size: int) -> bytes:
    received = b""
    with trio.fail_after(5):
        while len(received) < size:
            received += await stream.receive_some()
    return received


async def ends(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True
