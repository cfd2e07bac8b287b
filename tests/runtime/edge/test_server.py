"""The server among many clients, and how it stops."""

import contextlib
import gc
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from runtime.edge import Limits, ListenError, serve

QUICK = Limits(connections_max=3, head_s=5.0, write_s=0.2, linger_s=0.2, grace_s=0.3)
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
STUCK = b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"
LIE = b"GET /lie HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
BIG_BYTES = 20_000_000

Connect = Callable[..., Awaitable[trio.SocketStream]]


async def slow_app(scope: Any, receive: Any, send: Any) -> None:
    """/slow takes 0.1 s, /stuck for ever, /big is more than sockets buffer, /lie breaks HTTP."""
    if scope["path"] == "/slow":
        await trio.sleep(0.1)
    if scope["path"] == "/stuck":
        await trio.sleep_forever()
    body = b"x" * (BIG_BYTES if scope["path"] == "/big" else 2)
    length = b"1" if scope["path"] == "/lie" else str(len(body)).encode()
    headers = [(b"content-length", length), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens connections, and closes them after the test."""
    streams = []

    async def open_one(port: int, sent: bytes = b"") -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        streams.append(stream)
        if sent:
            await stream.send_all(sent)
        return stream

    yield open_one
    for stream in streams:
        await trio.aclose_forcefully(stream)


async def start(
    nursery: trio.Nursery, limits: Limits = QUICK, app: Any = slow_app
) -> tuple[int, trio.CancelScope]:
    """Serve an application; the scope stops it."""
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        with scope:
            await serve(app, "127.0.0.1:0", limits=limits, task_status=task_status)

    [address] = await nursery.start(run)
    return int(address.rpartition(":")[2]), scope


async def test_the_longest_idle_connection_makes_room_for_a_new_one(
    nursery: trio.Nursery, talk: Any, connect: Connect
) -> None:
    port, _ = await start(nursery)
    idle = [await connect(port) for _ in range(QUICK.connections_max)]
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert (await talk(port, GET)).status == 200
    with trio.fail_after(1):
        assert await idle[0].receive_some() == b""
    await idle[-1].send_all(GET)
    assert (await idle[-1].receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_client_too_many_is_turned_away_with_503(
    nursery: trio.Nursery, talk: Any, connect: Connect
) -> None:
    port, _ = await start(nursery)
    for _ in range(QUICK.connections_max):
        await connect(port, STUCK)
    await trio.testing.wait_all_tasks_blocked(0.01)
    reply = await talk(port, GET)
    assert reply.status == 503
    assert reply.headers["retry-after"] == "1"


async def test_hundreds_of_idle_connections_disturb_nobody(
    nursery: trio.Nursery, talk: Any, connect: Connect
) -> None:
    port, _ = await start(nursery, Limits(connections_max=100))
    for _ in range(200):
        await connect(port)
    for _ in range(5):
        assert (await talk(port, GET)).status == 200


async def test_a_client_that_never_reads_is_let_go(
    nursery: trio.Nursery, talk: Any, connect: Connect
) -> None:
    port, _ = await start(nursery)
    stream = await connect(port, BIG)
    await trio.sleep(QUICK.write_s + 1)  # The server may be late to begin on a busy machine.
    received = 0
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(1_000_000):
            received += len(data)
    assert received < BIG_BYTES
    assert (await talk(port, GET)).status == 200


async def test_a_client_that_vanishes_disturbs_nobody(
    nursery: trio.Nursery, talk: Any, connect: Connect, caplog: Any
) -> None:
    port, _ = await start(nursery, Limits())
    for sent in (b"", b"GET", SLOW, SLOW + SLOW, BIG):
        await trio.aclose_forcefully(await connect(port, sent))
    await trio.sleep(0.15)
    assert (await talk(port, GET)).status == 200
    assert not caplog.records


async def test_who_has_left_is_not_counted(nursery: trio.Nursery, talk: Any) -> None:
    port, _ = await start(nursery)
    for _ in range(2 * QUICK.connections_max):
        assert (await talk(port, GET)).status == 200


async def test_an_answer_may_take_longer_than_a_request(nursery: trio.Nursery, talk: Any) -> None:
    port, _ = await start(nursery, Limits(body_s=0.05))
    reply = await talk(port, SLOW)
    assert reply.status == 200
    assert not reply.closed


async def test_who_falls_silent_after_an_answer_is_let_go(
    nursery: trio.Nursery, connect: Connect
) -> None:
    port, _ = await start(nursery, Limits(head_s=0.1))
    stream = await connect(port, GET)
    with trio.fail_after(2):
        answer = b"".join([bytes(data) async for data in stream])
    assert answer.startswith(b"HTTP/1.1 200")


async def test_an_answer_that_breaks_the_rules_ends_only_its_own_connection(
    nursery: trio.Nursery, talk: Any, connect: Connect, caplog: Any
) -> None:
    port, _ = await start(nursery)
    await connect(port, LIE)
    await trio.sleep(0.05)
    assert "LocalProtocolError" in caplog.text
    assert (await talk(port, GET)).status == 200


async def test_a_bug_of_ours_ends_only_the_connection_that_met_it(
    nursery: trio.Nursery, connect: Connect, monkeypatch: Any, caplog: Any
) -> None:
    port, _ = await start(nursery)
    witness = await connect(port, SLOW)
    await trio.sleep(0.03)
    monkeypatch.setattr("runtime.edge.connection.refuse_head", None)
    victim = await connect(port, GET)
    assert await victim.receive_some() == b""
    assert (await witness.receive_some()).startswith(b"HTTP/1.1 200")
    assert "a connection failed" in caplog.text


async def test_stopping_finishes_what_is_under_way_and_accepts_nothing_more(
    nursery: trio.Nursery, connect: Connect
) -> None:
    port, scope = await start(nursery)
    idle = await connect(port)
    busy = await connect(port, SLOW)
    await trio.sleep(0.03)
    scope.cancel()
    assert await idle.receive_some() == b""
    answer = b"".join([bytes(data) async for data in busy])
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    with pytest.raises(OSError, match=str(port)):
        await connect(port)


async def test_stopping_does_not_wait_for_the_idle(nursery: trio.Nursery, connect: Connect) -> None:
    async with trio.open_nursery() as inner:
        port, scope = await start(inner, Limits())
        await connect(port, GET)
        await trio.sleep(0.03)
        begun = trio.current_time()
        scope.cancel()
    assert trio.current_time() - begun < 1


async def test_stopping_takes_no_longer_than_the_grace(connect: Connect) -> None:
    async def run(*, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        await serve(slow_app, "127.0.0.1:0", limits=QUICK, task_status=task_status)

    async with trio.open_nursery() as inner:
        [address] = await inner.start(run)
        port = int(address.rpartition(":")[2])
        await connect(port, STUCK)
        await connect(port, BIG)
        await trio.sleep(0.03)
        begun = trio.current_time()
        inner.cancel_scope.cancel()
    assert trio.current_time() - begun < QUICK.grace_s + 0.5


async def test_an_address_in_use_is_named_in_the_error(nursery: trio.Nursery) -> None:
    port, _ = await start(nursery)
    with pytest.raises(ListenError, match=f"127.0.0.1:{port}.*Free that address"):
        await serve(slow_app, f"127.0.0.1:{port}")


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1:x", "256.0.0.1:80"])
async def test_an_address_that_is_none_is_named_in_the_error(bind: str) -> None:
    with pytest.raises(ListenError, match=bind):
        await serve(slow_app, bind)


async def test_a_crowd_is_let_in_within_a_few_turns_of_the_loop(nursery: trio.Nursery) -> None:
    """Under load a turn is long, and one client a turn would wait for seconds."""
    crowd = 50
    port, scope = await start(nursery, Limits())
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(crowd)]
        for client in clients:  # The kernel takes these in; the loop does not turn meanwhile.
            client.connect(("127.0.0.1", port))
            client.sendall(GET)
        for _turn in range(crowd // 2):
            await trio.lowlevel.checkpoint()
        answered = select.select(clients, [], [], 0)[0]
    scope.cancel()

    assert len(answered) == crowd


async def test_who_sends_many_requests_at_once_keeps_nobody_waiting(nursery: trio.Nursery) -> None:
    port, scope = await start(nursery, Limits())
    address = ("127.0.0.1", port)
    turns = 20
    with socket.create_connection(address) as greedy, socket.create_connection(address) as modest:
        greedy.sendall(GET * 200)
        modest.sendall(GET)
        for _turn in range(turns):
            await trio.lowlevel.checkpoint()
        answered = greedy.recv(1_000_000).count(b"HTTP/1.1 200")
        assert modest.recv(1_000).startswith(b"HTTP/1.1 200")
    scope.cancel()

    assert 0 < answered <= turns


async def test_an_answer_that_fits_no_buffer_arrives_whole(
    nursery: trio.Nursery, talk: Any
) -> None:
    port, _ = await start(nursery, Limits())
    assert len((await talk(port, BIG)).body) == BIG_BYTES


async def test_nothing_more_is_done_for_who_does_not_take_an_answer(
    nursery: trio.Nursery, connect: Connect
) -> None:
    asked = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await slow_app(scope, receive, send)

    port, _ = await start(nursery, app=note)
    stream = await connect(port, BIG + GET)
    await trio.sleep(QUICK.write_s + 0.3)
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(1_000_000):
            pass
    assert asked == ["/big"]


async def test_who_is_hung_up_on_does_not_keep_his_place(
    nursery: trio.Nursery, connect: Connect
) -> None:
    port, _ = await start(nursery)
    stream = await connect(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    async def drip() -> None:
        while True:
            await stream.send_all(b" ")
            await trio.sleep(0.05)

    with trio.fail_after(2), pytest.raises(trio.BrokenResourceError):
        await drip()


# --- what an application hears ---


async def test_an_application_hears_that_its_client_has_gone(
    nursery: trio.Nursery, connect: Connect
) -> None:
    heard = trio.Event()

    async def wait_gone(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        heard.set()

    port, _ = await start(nursery, app=wait_gone)
    await trio.aclose_forcefully(await connect(port, GET))
    with trio.fail_after(2):
        await heard.wait()


@pytest.mark.parametrize("late", [b"", b"G"])
async def test_a_stream_ends_when_its_client_has_gone_though_he_sent_more(
    nursery: trio.Nursery, connect: Connect, late: bytes
) -> None:
    began, ended = trio.Event(), trio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        async def beat() -> None:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await trio.sleep(0.01)

        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as beating:
            beating.start_soon(beat)
            began.set()
            await receive()
            beating.cancel_scope.cancel()
        ended.set()

    port, _ = await start(nursery, app=app)
    client = await connect(port, GET)
    with trio.fail_after(5):
        await began.wait()
        if late:
            await client.send_all(late)
            await trio.sleep(0.05)
        await client.aclose()
        await ended.wait()


async def test_an_application_that_has_answered_hears_that_this_was_all(
    nursery: trio.Nursery, connect: Connect
) -> None:
    heard = trio.Event()

    async def answer_first(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await slow_app(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    port, _ = await start(nursery, app=answer_first)
    await connect(port, GET)
    with trio.fail_after(2):
        await heard.wait()


async def test_a_request_that_comes_while_an_application_listens_is_the_next(
    nursery: trio.Nursery, connect: Connect
) -> None:
    heard = []

    async def listen_for_a_while(scope: Any, receive: Any, send: Any) -> None:
        with trio.move_on_after(0.1):
            while True:
                heard.append((await receive())["type"])
        await slow_app(scope, receive, send)

    port, _ = await start(nursery, app=listen_for_a_while)
    stream = await connect(port, GET)
    await trio.sleep(0.03)
    await stream.send_all(GET)
    received = b""
    with trio.fail_after(2):
        while received.count(b"HTTP/1.1 200") < 2:
            received += await stream.receive_some()
    assert heard == ["http.request", "http.request"]


async def fails(_scope: Any, _receive: Any, _send: Any) -> None:
    raise RuntimeError("it fell over")


async def says_nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    return


@pytest.mark.parametrize(("app", "logged"), [(fails, "it fell over"), (says_nothing, "")])
async def test_who_gets_no_answer_of_the_application_gets_500(
    app: Any, logged: str, nursery: trio.Nursery, talk: Any, caplog: Any
) -> None:
    port, _ = await start(nursery, app=app)
    assert (await talk(port, GET)).status == 500
    assert logged in caplog.text


async def test_an_answered_request_leaves_nothing_to_the_collector(
    nursery: trio.Nursery, connect: Connect
) -> None:
    """What refers to itself waits for the garbage collector, and then everybody waits for that."""
    requests = 50
    port, _ = await start(nursery, Limits())
    stream = await connect(port, GET)
    await stream.receive_some()
    gc.collect()
    gc.disable()
    try:
        for _request in range(requests):
            await stream.send_all(GET)
            await stream.receive_some()
        assert gc.collect() < requests
    finally:
        gc.enable()
