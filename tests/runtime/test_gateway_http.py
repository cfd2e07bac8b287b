"""What the payment provider's client does with connections: keeps them, mistrusts them, and knows whom it talks to."""

import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from runtime.gateway_contract import NoReplyError, Reply, Request
from runtime.gateway_http import IDLE_S, HttpProvider

ASK = Request("GET", "/charges", reference="a b/ü&x=1")
CHARGE = Request("POST", "/charges", key="k 1", body=b'{"a":1}')
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Converse = Callable[[trio.abc.Stream], Awaitable[None]]


class Server:
    """Answers each request with the same bytes, and remembers requests by connection."""

    def __init__(self, reply: bytes = WHOLE, *, hangs_up: bool = False) -> None:
        self._reply, self._hangs_up = reply, hangs_up
        self.heard: list[list[bytes]] = []

    async def converse(self, stream: trio.abc.Stream) -> None:
        requests: list[bytes] = []
        self.heard.append(requests)
        async with stream:
            while request := await stream.receive_some():
                requests.append(bytes(request))
                await stream.send_all(self._reply)
                if self._hangs_up:
                    break


async def listen(
    nursery: trio.Nursery, converse: Converse, tls: ssl.SSLContext | None = None
) -> int:
    serve = (
        partial(trio.serve_ssl_over_tcp, ssl_context=tls, https_compatible=True)
        if tls
        else trio.serve_tcp
    )
    listeners = await nursery.start(partial(serve, converse, 0, host="127.0.0.1"))
    first = listeners[0]
    tcp = first.transport_listener if tls else first
    return int(tcp.socket.getsockname()[1])


async def test_requests_share_a_connection_and_say_all_that_there_is_to_say(
    nursery: trio.Nursery,
) -> None:
    server = Server()
    port = await listen(nursery, server.converse)
    async with aclosing(HttpProvider(f"http://127.0.0.1:{port}/v1", connections_max=1)) as provider:
        replies = [await provider.send(request) for request in (ASK, CHARGE)]
    nursery.cancel_scope.cancel()

    assert replies == [Reply(200, b"{}")] * 2
    ((asked, charged),) = server.heard
    assert asked.startswith(b"GET /v1/charges?reference=a%20b%2F%C3%BC%26x%3D1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n".encode() in asked
    assert charged.startswith(b"POST /v1/charges HTTP/1.1\r\n")
    assert b"Idempotency-Key: k 1\r\n" in charged
    assert charged.endswith(b'Content-Length: 7\r\n\r\n{"a":1}')


@pytest.mark.parametrize(
    "reply",
    [
        WHOLE,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
    ],
)
async def test_a_connection_that_was_hung_up_after_its_reply_is_not_used_again(
    nursery: trio.Nursery, reply: bytes
) -> None:
    server = Server(reply, hangs_up=True)
    port = await listen(nursery, server.converse)
    async with aclosing(HttpProvider(f"http://127.0.0.1:{port}", connections_max=1)) as provider:
        for _ in range(2):
            assert await provider.send(ASK) == Reply(200, b"{}")
            await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()

    assert [len(requests) for requests in server.heard] == [1, 1]


async def test_a_connection_that_was_idle_for_long_is_not_trusted(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    port = await listen(nursery, server.converse)
    async with aclosing(HttpProvider(f"http://127.0.0.1:{port}", connections_max=1)) as provider:
        await provider.send(ASK)
        later_s = trio.current_time() + IDLE_S
        with monkeypatch.context() as patch:
            patch.setattr(trio, "current_time", lambda: later_s)
            await provider.send(ASK)
    nursery.cancel_scope.cancel()

    assert [len(requests) for requests in server.heard] == [1, 1]


async def test_words_before_the_reply_are_passed_over(nursery: trio.Nursery) -> None:
    port = await listen(nursery, Server(b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE).converse)
    async with aclosing(HttpProvider(f"http://127.0.0.1:{port}", connections_max=1)) as provider:
        assert await provider.send(ASK) == Reply(200, b"{}")
    nursery.cancel_scope.cancel()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command (Debian: apt-get install openssl)")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    who = ["-subj", "/CN=pay", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([openssl, *asked.split(), *who, *files], check=True, capture_output=True)
    return key, cert


async def test_money_is_only_talked_about_with_whom_a_known_authority_vouches_for(
    nursery: trio.Nursery, certificate: tuple[Path, Path]
) -> None:
    key, cert = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    server = Server()

    async def converse(stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):  # The careful one does not believe us.
            await server.converse(stream)

    url = f"https://127.0.0.1:{await listen(nursery, converse, tls)}"
    known = ssl.create_default_context(cafile=str(cert))
    async with (
        aclosing(HttpProvider(url, connections_max=1)) as careful,
        aclosing(HttpProvider(url, connections_max=1, tls=known)) as acquainted,
    ):
        with pytest.raises(NoReplyError, match="CERTIFICATE_VERIFY_FAILED"):
            await careful.send(CHARGE)
        replies = [await acquainted.send(CHARGE) for _ in range(2)]
    nursery.cancel_scope.cancel()

    assert replies == [Reply(200, b"{}")] * 2
    assert [len(requests) for requests in server.heard if requests] == [2]
