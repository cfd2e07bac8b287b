"""The payment gateway client: its patience under virtual time, and real HTTP against real trouble."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing

from actors.actor import CallAnswered, CallOutcome, Charge, Enquiry, Refund
from runtime import simulator_http
from runtime.gateway import (
    ATTEMPTS_MAX,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    Gateway,
    HttpProvider,
    NoReplyError,
)
from runtime.gateway_contract import Reply, Request
from runtime.gateway_http import REPLY_BYTES_MAX
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger

Perform = Callable[..., Awaitable[CallAnswered]]

CHARGE = Charge(key="o1:charge", reference="o1", amount_minor=1530, currency="GBP", token="tok_ok")
REFUND = Refund(key="o1:refund", reference="o1", charge_id="ch_1", amount_minor=1530)
ENQUIRY = Enquiry("o1")

CAPTURED = Reply(201, b'{"id": "ch_1", "status": "captured"}')
LISTED = Reply(200, b'{"charges": [{"id": "ch_1"}]}')
NONE = Reply(200, b'{"charges": []}')
DOWN = Reply(503, b"")
RESET = NoReplyError("ReadError")
SILENCE = Reply(0, b"")  # The script's word for never answering.


class Script:
    """A provider that answers from a list, the last line for ever, and remembers what it was sent, and when."""

    def __init__(self, *lines: Reply | Exception) -> None:
        self.lines = list(lines)
        self.sent: list[Request] = []
        self.sent_at: list[float] = []

    async def send(self, request: Request) -> Reply:
        self.sent.append(request)
        self.sent_at.append(trio.current_time())
        line = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
        if line is SILENCE:
            await trio.sleep_forever()
        if isinstance(line, Exception):
            raise line
        return line

    @property
    def sent_briefly(self) -> list[str]:
        return [f"{request.method} {request.key}".strip() for request in self.sent]


def gateway_to(script: Script) -> Gateway:
    return Gateway(script, call_timeout_s=10, pool_size=2, rng=random.Random(7))


POST = "POST o1:charge"
GETS = ["GET"] * ATTEMPTS_MAX
ASKED_BETWEEN = [POST, "GET"] * ATTEMPTS_MAX
UNASKABLE = Reply(404, b"")


@pytest.mark.parametrize(
    ("lines", "sent", "outcome", "detail"),
    [
        ([CAPTURED], [POST], "captured", "ch_1"),
        ([DOWN, NONE, CAPTURED], [POST, "GET", POST], "captured", "ch_1"),
        ([RESET, LISTED], [POST, "GET"], "captured", "ch_1"),
        ([SILENCE, RESET, LISTED], [POST, "GET", "GET"], "captured", "ch_1"),
        (
            [RESET, NONE, SILENCE, NONE, DOWN, NONE, CAPTURED],
            ASKED_BETWEEN[:-1],
            "captured",
            "ch_1",
        ),
        ([DOWN, NONE, Reply(402, b'{"code": "no"}')], [POST, "GET", POST], "declined", "no"),
        ([DOWN, UNASKABLE, CAPTURED], [POST, "GET", POST], "captured", "ch_1"),
        ([RESET, NONE] * ATTEMPTS_MAX, ASKED_BETWEEN, "not_charged", ""),
        (
            [RESET, *[DOWN] * 3, SILENCE],
            [POST, *GETS],
            "unknown",
            "no reply within 10 s; before that, ReadError",
        ),
        ([Reply(422, b""), NONE], [POST, "GET"], "declined", "rejected_422"),
        ([Reply(422, b""), LISTED], [POST, "GET"], "captured", "ch_1"),
        ([Reply(422, b""), DOWN], [POST, *GETS], "unknown", "422; asked by reference, 503"),
        ([Reply(401, b"")], [POST], "unknown", "401"),
    ],
)
async def test_a_charge_insists_with_one_key_and_asks_before_each_repetition(
    perform: Perform,
    autojump_clock: trio.testing.MockClock,
    lines: Sequence[Reply | Exception],
    sent: list[str],
    outcome: str,
    detail: str,
) -> None:
    script = Script(*lines)

    answer = await perform(gateway_to(script), "o1", CHARGE)

    assert (answer.key, answer.call, answer.outcome) == ("o1", CHARGE, outcome)
    assert detail in answer.detail
    assert script.sent_briefly == sent
    assert len({request.body for request in script.sent if request.key}) == 1


@pytest.mark.parametrize("by", ["the shard", "the state"])
async def test_a_charge_that_may_have_been_sent_before_is_asked_about_first(
    perform: Perform, by: str
) -> None:
    script = Script(LISTED)
    call = replace(CHARGE, again=by == "the state")

    answer = await perform(gateway_to(script), "o1", call, again=by == "the shard")

    assert (answer.outcome, answer.detail) == ("captured", "ch_1")
    assert script.sent_briefly == ["GET"]


async def test_of_many_recovered_charges_one_is_made_before_all_others_have_been_asked_about(
    perform: Perform,
) -> None:
    """Else a shard that is broken off again and again asks for ever, and no order comes to its end."""
    script = Script(*[NONE, CAPTURED] * 5)
    gateway = Gateway(script, call_timeout_s=10, pool_size=1)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            call = replace(CHARGE, key=f"o{number}:charge", reference=f"o{number}")
            nursery.start_soon(partial(perform, gateway, f"o{number}", call, again=True))

    assert [request.method for request in script.sent] == ["GET", "POST"] * 5


async def test_a_provider_that_forgets_its_keys_at_once_still_charges_once(
    perform: Perform,
) -> None:
    ledger = Ledger()
    forgetful = Simulator(ledger)

    class Forgetful:
        async def send(self, request: Request) -> Reply:
            ledger._by_key.clear()
            return await forgetful.send(request)

    gateway = Gateway(Forgetful(), call_timeout_s=0.05, pool_size=1)
    call = replace(CHARGE, token="tok_timeout_after_charge")

    answers = [await perform(gateway, "o1", call, again=crashed) for crashed in (False, True)]

    assert [answer.outcome for answer in answers] == ["captured"] * 2
    assert len(ledger.captures("o1")) == 1


@pytest.mark.parametrize(
    ("lines", "attempts", "outcome"),
    [
        ([Reply(201, b"")], 1, "refunded"),
        ([DOWN, RESET, Reply(201, b"")], 3, "refunded"),
        ([DOWN], ATTEMPTS_MAX, "unknown"),
        ([Reply(422, b"")], 1, "unknown"),
    ],
)
async def test_a_refund_insists_with_one_key_and_then_stays_unknown(
    perform: Perform,
    autojump_clock: trio.testing.MockClock,
    lines: Sequence[Reply | Exception],
    attempts: int,
    outcome: str,
) -> None:
    script = Script(*lines)

    answer = await perform(gateway_to(script), "o1", REFUND)

    assert answer.outcome == outcome
    assert script.sent_briefly == ["POST o1:refund"] * attempts


@pytest.mark.parametrize(
    ("lines", "attempts", "outcome"),
    [
        ([LISTED], 1, "captured"),
        ([DOWN, NONE], 2, "not_charged"),
        ([SILENCE], ATTEMPTS_MAX, "unknown"),
    ],
)
async def test_an_enquiry_takes_nothing_and_insists(
    perform: Perform,
    autojump_clock: trio.testing.MockClock,
    lines: Sequence[Reply | Exception],
    attempts: int,
    outcome: str,
) -> None:
    script = Script(*lines)

    answer = await perform(gateway_to(script), "o1", ENQUIRY)

    assert answer.outcome == outcome
    assert script.sent_briefly == ["GET"] * attempts


async def test_pauses_double_and_are_spread(
    perform: Perform, autojump_clock: trio.testing.MockClock
) -> None:
    pauses: list[float] = []
    for seed in range(20):
        script = Script(DOWN)
        gateway = Gateway(script, call_timeout_s=10, pool_size=1, rng=random.Random(seed))
        await perform(gateway, "o1", REFUND)
        gaps = [after - before for before, after in pairwise(script.sent_at)]
        for attempt, gap in enumerate(gaps):
            full_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2**attempt)
            assert full_s / 2 <= gap <= full_s
        pauses.append(gaps[0])

    assert max(pauses) - min(pauses) > PAUSE_MIN_S / 4


async def test_silence_ends_at_the_call_timeout(
    perform: Perform, autojump_clock: trio.testing.MockClock
) -> None:
    script = Script(SILENCE, NONE, CAPTURED)

    await perform(gateway_to(script), "o1", CHARGE)

    waited_s = script.sent_at[1] - script.sent_at[0]
    assert 10 + PAUSE_MIN_S / 2 <= waited_s <= 10 + PAUSE_MIN_S


async def test_no_more_requests_are_under_way_than_slots(
    perform: Perform,
    autojump_clock: trio.testing.MockClock,
) -> None:
    simulator = Simulator(Ledger(), slow_s=1)
    gateway = Gateway(simulator, call_timeout_s=10, pool_size=2)
    started_s = trio.current_time()

    async with trio.open_nursery() as nursery:
        for n in range(6):
            slow = Charge(f"o{n}:charge", f"o{n}", 100, "GBP", "tok_slow")
            nursery.start_soon(perform, gateway, f"o{n}", slow)

    assert trio.current_time() - started_s == pytest.approx(3)


async def test_a_call_that_pauses_leaves_its_slot_to_others(
    perform: Perform,
    autojump_clock: trio.testing.MockClock,
) -> None:
    gateway = Gateway(Simulator(Ledger()), call_timeout_s=10, pool_size=1)
    started_s = trio.current_time()
    took_s: dict[str, float] = {}

    async def charge(order_id: str, token: str) -> None:
        await perform(gateway, order_id, Charge(order_id, order_id, 100, "GBP", token))
        took_s[order_id] = trio.current_time() - started_s

    async with trio.open_nursery() as nursery:
        nursery.start_soon(charge, "flaky", "tok_flaky")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(charge, "ok", "tok_ok")

    assert took_s["ok"] == 0
    assert took_s["flaky"] > 0


# Real HTTP from here on, in real time that is short.


@asynccontextmanager
async def over_http(
    ledger: Ledger, *, call_timeout_s: float = 5, pool_size: int = 4
) -> AsyncIterator[Gateway]:
    async with trio.open_nursery() as nursery:
        simulator = Simulator(ledger, slow_s=0.02)
        url = await nursery.start(simulator_http.serve, simulator)
        async with aclosing(HttpProvider(url, connections_max=pool_size)) as provider:
            yield Gateway(provider, call_timeout_s=call_timeout_s, pool_size=pool_size)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("token", "call_timeout_s", "outcome", "detail"),
    [
        ("tok_ok", 5, "captured", "ch_"),
        ("tok_slow", 5, "captured", "ch_"),
        ("tok_flaky", 5, "captured", "ch_"),
        ("tok_error_after_charge", 5, "captured", "ch_"),
        ("tok_timeout_after_charge", 0.2, "captured", "ch_"),
        ("tok_declined", 5, "declined", "card_declined"),
        ("tok_nonsense", 5, "declined", "invalid_token"),
    ],
)
async def test_every_token_ends_in_one_charge_or_none(
    perform: Perform, token: str, call_timeout_s: float, outcome: str, detail: str
) -> None:
    ledger = Ledger()
    call = Charge("o1:charge", "o1", 1530, "GBP", token)

    async with over_http(ledger, call_timeout_s=call_timeout_s) as gateway:
        answer = await perform(gateway, "o1", call)
        repeated = await perform(gateway, "o1", call)  # As after a crash of ours.

    assert (answer.outcome, repeated) == (outcome, answer)
    assert answer.detail.startswith(detail)
    assert [line.id for line in ledger.lines] == ([answer.detail] if outcome == "captured" else [])


async def test_money_goes_back_once_and_is_asked_about_by_reference(perform: Perform) -> None:
    ledger = Ledger()
    async with over_http(ledger) as gateway:
        nothing = await perform(gateway, "o1", ENQUIRY)
        charged = await perform(gateway, "o1", CHARGE)
        found = await perform(gateway, "o1", ENQUIRY)
        refund = Refund("o1:refund", "o1", charged.detail, 1530)
        refunds = [await perform(gateway, "o1", refund) for _ in range(2)]
        twice = await perform(gateway, "o1", Refund("o1:again", "o1", charged.detail, 1))

    assert nothing.outcome is CallOutcome.NOT_CHARGED
    assert (found.outcome, found.detail) == (CallOutcome.CAPTURED, charged.detail)
    assert refunds[0].outcome is CallOutcome.REFUNDED
    assert refunds[0] == refunds[1]
    assert twice.outcome is CallOutcome.UNKNOWN
    assert "refund_exceeds_charge" in twice.detail
    assert [line.kind for line in ledger.lines] == ["capture", "refund"]


async def test_a_rejected_body_is_a_refusal_once_nothing_is_found(perform: Perform) -> None:
    ledger = Ledger()
    async with over_http(ledger) as gateway:
        answer = await perform(gateway, "o1", Charge("o1:charge", "o1", 0, "GBP", "tok_ok"))

    assert (answer.outcome, answer.detail) == (CallOutcome.DECLINED, "rejected_422")
    assert not ledger.lines


async def test_connections_are_kept_and_survive_timeouts(perform: Perform) -> None:
    ledger = Ledger()
    async with over_http(ledger, call_timeout_s=0.2, pool_size=1) as gateway:
        for n in range(3):
            hanging = Charge(f"h{n}", f"h{n}", 100, "GBP", "tok_timeout_after_charge")
            answer = await perform(gateway, "x", hanging)
            assert answer.outcome is CallOutcome.CAPTURED

    assert len(ledger.lines) == 3


Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


async def reset(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def hear(stream: trio.SocketStream) -> None:
    heard = b""
    while not heard.endswith(b"{}"):
        heard += await stream.receive_some()


async def say(text: bytes, stream: trio.SocketStream) -> None:
    await hear(stream)
    await stream.send_all(text)
    await stream.aclose()


def whole(size_bytes: int) -> bytes:
    return b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % size_bytes + bytes(size_bytes)


@pytest.mark.parametrize(
    ("behaviour", "seen"),
    [
        (reset, "disconnected|Error"),
        (partial(say, b""), "disconnected"),
        (partial(say, b"HTTP/1.1 201 Created\r\nContent-Length: 50\r\n\r\n{"), "disconnected"),
        (partial(say, b"SSH-2.0-OpenSSH_9.6\r\n"), "disconnected"),
        (partial(say, b"HTTP/1.1 999999 What\r\n\r\n"), "RemoteProtocol"),
        (partial(say, b"HTTP/1.1 201 OK\r\nX: " + bytes(300_000)), "RemoteProtocol"),
        (partial(say, whole(REPLY_BYTES_MAX + 1)), "larger than"),
    ],
)
async def test_a_broken_conversation_is_no_reply(
    nursery: trio.Nursery, behaviour: Behaviour, seen: str
) -> None:
    async def converse(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # The client has heard enough.
            await behaviour(stream)

    listeners = await nursery.start(partial(trio.serve_tcp, converse, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    provider = HttpProvider(f"http://127.0.0.1:{port}", connections_max=1)

    for _ in range(2):  # A connection lost must not cost its place in the pool.
        with trio.fail_after(5), pytest.raises(NoReplyError, match=seen):
            await provider.send(Request("POST", "/charges", key="k", body=b"{}"))

    await provider.aclose()
    nursery.cancel_scope.cancel()


async def test_nobody_listening_is_no_reply() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        provider = HttpProvider(url, connections_max=1)
        with pytest.raises(NoReplyError, match="ConnectError"):
            await provider.send(Request("GET", "/charges", reference="o1"))
        await provider.aclose()


async def test_the_environment_does_not_redirect_money(
    perform: Perform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async with over_http(Ledger()) as gateway:
        answer = await perform(gateway, "o1", CHARGE)

    assert answer.outcome is CallOutcome.CAPTURED
