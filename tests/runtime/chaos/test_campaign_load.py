"""The customers of a campaign, and what they write down; against a server that answers as it is told."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from runtime.audit.journal import Attempt, Op, Told, read_journal
from runtime.chaos.http import Http
from runtime.chaos.load import Load
from runtime.chaos.shopping import SCARCE, wish

ACCEPTED = (202, {"order_id": "o1", "status": "pending"})
HANG_UP = (0, None)


class Server:
    """Answers each request with the next of its answers, and with the last of them from then on."""

    def __init__(self, answers: Iterable[tuple[int, object]]) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.address = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            while request := await _read(stream):
                self.asked.append(request)
                status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not status:
                    return
                text = msgspec.json.encode(body)
                head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(text)}\r\nRetry-After: 0\r\n\r\n"
                await stream.send_all(head.encode() + text)


async def _read(stream: trio.SocketStream) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        if not (more := await stream.receive_some()):
            return b""
        request += more
    head, _, body = request.partition(b"\r\n\r\n")
    [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < int(length.split(b":")[1]):
        body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


@asynccontextmanager
async def shopping(
    tmp_path: Path, *answers: tuple[int, object], rate: float = 1_000.0
) -> AsyncIterator[tuple[Load, Server]]:
    server, http = Server(answers), Http()
    load = Load(http, lambda: server.address, tmp_path / "journal", seed=1, rate=rate)
    with closing(load):
        async with aclosing(http), trio.open_nursery() as nursery:
            [listener] = await nursery.start(
                partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
            )
            server.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.start_soon(load.run)
            yield load, server
            nursery.cancel_scope.cancel()


async def test_a_customer_repeats_the_same_request_with_its_key_until_the_answer_is_definite(
    tmp_path: Path,
) -> None:
    busy = (503, {"detail": "not now"})
    async with shopping(tmp_path, busy, HANG_UP, (429, {}), ACCEPTED) as (load, server):
        await load.wait_begun(1)
        load.stop()
        assert await load.finish(5)
    places = [one for one in load.attempts if one.op is Op.PLACE and one.key == "chaos-1-0"]
    assert [(one.outcome, one.code) for one in places][-1] == (Told.ACCEPTED, 202)
    assert {one.outcome for one in places[:-1]} <= {Told.UNKNOWN}
    bodies = [asked for asked in server.asked if b"chaos-1-0\r\n" in asked]
    assert len(set(bodies)) == 1
    assert {one.code for one in load.attempts} >= {0, 202, 429, 503}


async def test_what_was_attempted_is_in_the_journal_line_by_line(tmp_path: Path) -> None:
    async with shopping(tmp_path, ACCEPTED) as (load, _):
        await load.wait_begun(3)
        assert await load.finish(5)
    assert list(read_journal(tmp_path / "journal")) == load.attempts
    first = next(one for one in load.attempts if one.key == "chaos-1-0")
    wanted = wish(1, 0)
    assert first == Attempt(
        op=Op.PLACE,
        at_ms=first.at_ms,
        took_ms=first.took_ms,
        outcome=Told.ACCEPTED,
        code=202,
        key=wanted.key,
        order_id="o1",
        status="pending",
        currency=wanted.body["currency"],
        total_minor=wanted.total_minor,
        items=wanted.lines,
        token=wanted.body["payment_token"],
    )


async def test_a_refusal_is_definite_and_accepts_nothing(tmp_path: Path) -> None:
    async with shopping(tmp_path, (422, {"detail": "no"})) as (load, _):
        await load.wait_begun(1)
        assert await load.finish(5)
    assert not load.accepted
    assert {one.outcome for one in load.attempts} == {Told.REFUSED}


async def test_a_customer_without_a_definite_answer_is_counted_as_such(tmp_path: Path) -> None:
    async with shopping(tmp_path, (503, {})) as (load, _):
        await load.wait_begun(1)
        assert not await load.finish(0.3)
        assert not load.accepted
        await trio.sleep(0.05)  # Given up: nobody asks any more.
        asked = len(load.attempts)
        await trio.sleep(0.3)
        assert len(load.attempts) == asked


async def test_orders_arrive_at_their_rate_whatever_becomes_of_them(tmp_path: Path) -> None:
    async with shopping(tmp_path, (503, {}), rate=100) as (load, _):
        await trio.sleep(0.5)
        assert 25 <= load.begun <= 60
        assert load.under_way == load.begun


async def test_an_acceptance_counts_after_a_moment_only_if_it_was_asked_for_after_it(
    tmp_path: Path,
) -> None:
    async with shopping(tmp_path, ACCEPTED, rate=50) as (load, _):
        heard_s = await load.wait_accept(0, 5)
        assert heard_s is not None
        sent_s = load._sent_s[0]
        assert load.first_accept_after(sent_s) == heard_s
        later_s = load.first_accept_after(sent_s + 1e-6)
        assert later_s is None or later_s > heard_s
        assert await load.wait_accept(trio.current_time() + 60, 0.05) is None


def test_the_same_seed_wants_the_same_orders() -> None:
    assert [wish(3, n) for n in range(50)] == [wish(3, n) for n in range(50)]
    assert [wish(3, n).body for n in range(50)] != [wish(4, n).body for n in range(50)]


def test_customers_want_what_they_should() -> None:
    wishes = [wish(1, number) for number in range(2_000)]

    def share(count: int) -> float:
        return count / len(wishes)

    assert share(sum(len(one.lines) > 1 for one in wishes)) == pytest.approx(0.30, abs=0.05)
    declined = sum(one.body["payment_token"] == "tok_declined" for one in wishes)
    assert share(declined) == pytest.approx(0.10, abs=0.03)
    scarce = sum(any(sku == SCARCE for sku, _, _ in one.lines) for one in wishes)
    assert share(scarce) == pytest.approx(0.05, abs=0.02)
    cancelled = sum(one.cancel_after_s is not None for one in wishes)
    assert share(cancelled) == pytest.approx(0.03, abs=0.015)
