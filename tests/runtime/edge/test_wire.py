"""What comes over the wire that is no proper request, against the real server on a loopback port."""

import json
import re
from typing import Any

import pytest
import trio

from runtime.edge import Limits

QUICK = Limits(head_s=0.2, body_s=0.2, write_s=0.2, linger_s=0.2, grace_s=0.2)
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
POST = (
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n"
)


def request(
    line: bytes = b"GET /livez HTTP/1.1", headers: bytes = b"Host: x", body: bytes = b""
) -> bytes:
    return line + b"\r\n" + headers + b"\r\n\r\n" + body


MALFORMED = {
    "no host": request(headers=b"A: b"),
    "two hosts": request(headers=b"Host: x\r\nHost: y"),
    "garbage": b"\x00\x01\x02\x03garbage\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "nul in a header": request(headers=b"Host: x\r\nA: b\x00c"),
    "space before the colon": request(headers=b"Host: x\r\nA : b"),
    "bad chunk size": request(POST[:-2], b"Transfer-Encoding: chunked", b"zz\r\n"),
    "chunk without line end": request(POST[:-2], b"Transfer-Encoding: chunked", b"2\r\n{}xx0\r\n"),
    "two lengths": request(POST[:-2], b"Content-Length: 2\r\nContent-Length: 3", b"{}"),
    "negative length": request(POST[:-2], b"Content-Length: -1"),
    "signed length": request(POST[:-2], b"Content-Length: +5"),
    "word for a length": request(POST[:-2], b"Content-Length: abc"),
    "length of 30 digits": request(POST[:-2], b"Content-Length: " + b"9" * 30),
    "length and chunks": request(
        POST[:-2], b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"
    ),
    "folded header": request(headers=b"Host: x\r\nA: b\r\n c"),
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "http/9.9": request(b"GET /livez HTTP/9.9"),
    "http/0.9": b"GET /livez\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "absolute form": request(b"GET http://evil/livez HTTP/1.1"),
    "asterisk form": request(b"OPTIONS * HTTP/1.1"),
    "nul in the path": request(b"GET /livez%00 HTTP/1.1"),
    "line end in the path": request(b"GET /orders/a%0d%0aSet-Cookie:x HTTP/1.1"),
    "dot segments": request(b"GET /orders/../livez HTTP/1.1"),
    "escaped dot segments": request(b"GET /orders/%2e%2E/livez HTTP/1.1"),
    "broken escape": request(b"GET /orders/%zz HTTP/1.1"),
    "space in the path": request(b"GET /or ders HTTP/1.1"),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_request_gets_400_and_a_closed_connection(
    serve_edge: Any, talk: Any, sent: bytes
) -> None:
    reply = await talk(await serve_edge(), sent)
    assert reply.status == 400
    assert reply.problem["detail"]
    assert reply.headers["connection"] == "close"
    assert reply.closed


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(POST[:-2], b"Transfer-Encoding: gzip, chunked"), 501),
        (request(POST[:-2], b"Transfer-Encoding: xchunked"), 501),
        (request(b"get /livez HTTP/1.1"), 501),
        (request(b"BREW /livez HTTP/1.1"), 501),
        (request(b"M" * 5_000 + b" /livez HTTP/1.1"), 501),
        (request(b"CONNECT evil:80 HTTP/1.1"), 501),
        (request(b"GET /" + b"x" * 20_000 + b" HTTP/1.1"), 414),
        (b"GET /" + b"x" * 60_000, 414),
        (request(headers=b"Host: x\r\nA: " + b"x" * 20_000), 431),
        (request(headers=b"Host: x\r\n" + b"\r\n".join(b"A%d: b" % n for n in range(100))), 431),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 60_000, 431),
        (request(POST[:-2], b"Content-Length: 65537"), 413),
        (request(POST[:-2], b"Content-Length: 10000000000"), 413),
        (request(POST[:-2], b"Expect: 100-continue\r\nContent-Length: 65537"), 413),
        (request(POST[:-2], b"Content-Encoding: gzip\r\nContent-Length: 2", b"\x1f\x8b"), 415),
    ],
    ids=str,
)
async def test_what_goes_too_far_gets_the_status_that_says_so(
    serve_edge: Any, talk: Any, sent: bytes, status: int
) -> None:
    reply = await talk(await serve_edge(), sent)
    assert reply.status == status
    assert reply.problem["status"] == status
    assert reply.closed


async def test_a_head_at_the_limits_is_served(serve_edge: Any, talk: Any) -> None:
    fields = b"\r\n".join(b"A%d: %s" % (n, b"x" * 150) for n in range(99))
    sent = request(b"GET /livez?" + b"x" * 8_000 + b" HTTP/1.1", b"Host: x\r\n" + fields)
    assert (await talk(await serve_edge(), sent)).status == 200


async def test_chunks_that_add_up_to_too_much_are_refused_while_they_come(
    serve_edge: Any, read: Any
) -> None:
    port = await serve_edge()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        for _ in range(3):
            await stream.send_all(chunk)
        reply = await read(stream)
    assert reply.status == 413
    assert reply.closed


async def test_a_body_in_too_many_pieces_is_refused(serve_edge: Any, talk: Any) -> None:
    pieces = b"1\r\n \r\n" * 1_001
    reply = await talk(await serve_edge(), POST + b"Transfer-Encoding: chunked\r\n\r\n" + pieces)
    assert reply.status == 413
    assert "pieces" in reply.problem["detail"]


async def test_a_client_that_sends_a_flood_still_reads_why_it_was_refused(
    serve_edge: Any, read: Any
) -> None:
    port = await serve_edge()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(POST + b"Content-Length: 1000000\r\n\r\n")
        await stream.send_all(b" " * 1_000_000)
        assert (await read(stream)).status == 413


async def test_a_body_in_chunks_is_an_order_like_any_other(
    serve_edge: Any, talk: Any, order: Any
) -> None:
    body = json.dumps(order).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    reply = await talk(await serve_edge(), POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert reply.status == 202


async def test_an_expectation_is_met_before_the_body_is_sent(
    serve_edge: Any, read: Any, order: Any
) -> None:
    body = json.dumps(order).encode()
    port = await serve_edge()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        await stream.send_all(head)
        assert (await read(stream)).status == 100
        await stream.send_all(body)
        assert (await read(stream)).status == 202


async def test_a_body_that_stays_away_gets_408(serve_edge: Any, talk: Any) -> None:
    port = await serve_edge(limits=QUICK)
    reply = await talk(port, POST + b"Content-Length: 10\r\n\r\nabc")
    assert reply.status == 408
    assert reply.headers["connection"] == "close"


async def test_a_body_that_drips_does_not_outlive_its_time(serve_edge: Any, read: Any) -> None:
    port = await serve_edge(limits=QUICK)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(POST + b"Content-Length: 1000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drip, stream)
            assert (await read(stream)).status == 408
            nursery.cancel_scope.cancel()


async def _drip(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(b" ")
        await trio.sleep(0.02)


async def test_a_body_cut_short_gets_400(serve_edge: Any, talk: Any) -> None:
    sent = POST + b"Content-Length: 10\r\n\r\nabc"
    assert (await talk(await serve_edge(), sent, half_close=True)).status == 400


@pytest.mark.parametrize("start", [b"", b"GET /liv", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
async def test_who_connects_and_falls_silent_is_let_go(serve_edge: Any, start: bytes) -> None:
    port = await serve_edge(limits=QUICK)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        if start:
            await stream.send_all(start)
        with trio.fail_after(2):
            assert await stream.receive_some() == b""


async def test_a_head_that_drips_does_not_outlive_its_time(serve_edge: Any) -> None:
    port = await serve_edge(limits=QUICK)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"GET /livez HTTP/1.1\r\nA: ")
        with trio.fail_after(2), pytest.raises(trio.BrokenResourceError):
            await _drip(stream)


async def test_who_half_closes_after_a_request_gets_its_answer(serve_edge: Any, talk: Any) -> None:
    assert (await talk(await serve_edge(), GET, half_close=True)).status == 200


async def test_a_connection_carries_many_requests(serve_edge: Any, read: Any) -> None:
    port = await serve_edge()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for _ in range(3):
            await stream.send_all(GET)
            reply = await read(stream)
            assert reply.status == 200
            assert not reply.closed


async def test_pipelined_requests_are_answered_in_their_order(serve_edge: Any) -> None:
    port = await serve_edge()
    last = request(headers=b"Host: x\r\nConnection: close")
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(GET + request(b"GET /nowhere HTTP/1.1") + last)
        with trio.fail_after(2):
            seen = b"".join([bytes(data) async for data in stream])
    assert re.findall(rb"HTTP/1.1 (\d+)", seen) == [b"200", b"404", b"200"]


async def test_http_1_0_is_answered_and_closed(serve_edge: Any, talk: Any) -> None:
    reply = await talk(await serve_edge(), b"GET /livez HTTP/1.0\r\n\r\n")
    assert reply.status == 200
    assert reply.closed


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
    ],
)
async def test_an_upgrade_is_ignored(serve_edge: Any, talk: Any, upgrade: bytes) -> None:
    reply = await talk(await serve_edge(), request(headers=b"Host: x\r\n" + upgrade))
    assert reply.status == 200


async def test_a_refusal_of_the_head_carries_the_clients_trace(
    serve_edge: Any, talk: Any, traceparent: str
) -> None:
    headers = f"Host: x\r\ntraceparent: {traceparent}\r\nContent-Length: 65537".encode()
    reply = await talk(await serve_edge(), request(POST[:-2], headers.replace(b"Host: x\r\n", b"")))
    assert reply.problem["trace_id"] == traceparent[3:35]


async def test_a_refused_head_request_gets_no_body(serve_edge: Any) -> None:
    port = await serve_edge()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request(b"HEAD /livez/.. HTTP/1.1"))
        seen = b"".join([bytes(data) async for data in stream])
    assert seen.startswith(b"HTTP/1.1 400")
    assert seen.endswith(b"\r\n\r\n")


async def test_a_bug_is_500_logged_once_and_the_server_goes_on(
    serve_edge: Any, talk: Any, desk: Any, caplog: Any
) -> None:
    port = await serve_edge()
    desk.broken = True
    reply = await talk(port, request(b"GET /orders/o1 HTTP/1.1"))
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert caplog.text.count("RuntimeError: secret_token_123") == 1
    assert (await talk(port, GET)).status == 200


async def test_no_answer_says_what_server_this_is(serve_edge: Any, talk: Any) -> None:
    reply = await talk(await serve_edge(), GET)
    assert "server" not in reply.headers
    assert "date" in reply.headers
