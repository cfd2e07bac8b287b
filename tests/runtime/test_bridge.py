"""The bridge before a real server and one that misbehaves: it fails promptly and never hangs."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from runtime import bridge as bridge_module
from runtime import link as link_module
from runtime.bridge import Address, Bridge
from runtime.link import Link, Message
from runtime.log import BrokerConfigError, BrokerLostError, RefusedError

Serve = Callable[[trio.SocketStream], Awaitable[None]]


class FakeBroker:
    """Speaks just enough of the protocol to be connected to, then does what the test wants."""

    def __init__(self, *behaviours: Serve, info: dict[str, Any] | None = None) -> None:
        self.connections = 0
        self.closed = trio.Event()
        self._behaviours = behaviours
        self._info = {"max_payload": 1000, "headers": True, "proto": 1} | (info or {})

    async def start(self, nursery: trio.Nursery) -> str:
        listeners = await nursery.start(trio.serve_tcp, self._serve, 0)
        return f"nats://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    async def _serve(self, stream: trio.SocketStream) -> None:
        behave = self._behaviours[min(self.connections, len(self._behaviours) - 1)]
        self.connections += 1
        await stream.send_all(b"INFO %b\r\n" % json.dumps(self._info).encode())
        heard = b""
        while b"PING\r\n" not in heard:
            heard += await stream.receive_some()
        await behave(stream)

    async def stay(self, stream: trio.SocketStream) -> None:
        await stream.send_all(b"PONG\r\n")
        async for _ in stream:
            pass
        self.closed.set()


def say(words: bytes) -> Serve:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all(words)
        async for _ in stream:
            pass

    return behave


async def connected(nursery: trio.Nursery, url: str) -> Bridge:
    bridge = Bridge(Address([url]))
    await nursery.start(bridge.run)
    with trio.fail_after(5):
        await bridge.wait_connected()
    return bridge


@pytest.fixture
async def bridge(nats_server: Any, nursery: trio.Nursery) -> Bridge:
    return await connected(nursery, nats_server.url)


# --- requests and subscriptions


async def test_a_request_is_answered_by_whoever_subscribes(bridge: Bridge) -> None:
    def answer(message: Message) -> None:
        bridge.publish(message.reply.decode(), message.payload[::-1], headers=message.headers)

    bridge.subscribe("service.x", answer, lambda why: None)
    message = await bridge.request("service.x", b"abc", headers={"a": "b: c", "empty": ""})
    assert (message.payload, message.headers) == (b"cba", {"a": "b: c", "empty": ""})
    assert message.status == 0


async def test_answers_find_their_requests_in_any_order(bridge: Bridge) -> None:
    asked: list[Message] = []
    answers: dict[bytes, bytes] = {}
    bridge.subscribe("service.x", asked.append, lambda why: None)

    async def ask(payload: bytes) -> None:
        answers[payload] = (await bridge.request("service.x", payload)).payload

    async with trio.open_nursery() as nursery:
        for payload in (b"1", b"2", b"3"):
            nursery.start_soon(ask, payload)
        while len(asked) < 3:  # noqa: ASYNC110 - A test may look.
            await trio.sleep(0.001)
        for message in reversed(asked):
            bridge.publish(message.reply.decode(), b"to " + message.payload)
    assert answers == {b"1": b"to 1", b"2": b"to 2", b"3": b"to 3"}


async def test_where_nobody_listens_the_answer_says_so_at_once(bridge: Bridge) -> None:
    with trio.fail_after(1):
        assert (await bridge.request("nobody.here")).status == 503


async def test_a_request_without_an_answer_ends_and_its_late_answer_is_dropped(
    bridge: Bridge,
) -> None:
    asked: list[Message] = []
    bridge.subscribe("service.x", asked.append, lambda why: None)
    with pytest.raises(BrokerLostError, match=r"no answer on service.x within 0.05 s"):
        await bridge.request("service.x", timeout_s=0.05)
    bridge.publish(asked[0].reply.decode(), b"late")
    assert (await bridge.request("nobody.here")).status == 503
    assert bridge.connected


async def test_a_cancelled_request_sends_nothing(bridge: Bridge) -> None:
    asked: list[Message] = []
    bridge.subscribe("service.x", asked.append, lambda why: None)
    with trio.CancelScope() as scope:
        scope.cancel()
        await bridge.request("service.x")
    await bridge.request("nobody.here")
    assert not asked


async def test_a_closed_subscription_hears_no_more(bridge: Bridge) -> None:
    heard: list[Message] = []
    subscription = bridge.subscribe("topic.x", heard.append, lambda why: None)
    bridge.publish("topic.x", b"1")
    await bridge.request("nobody.here")
    subscription.close()
    subscription.close()
    assert (await bridge.request("topic.x", b"2")).status == 503, "the broker knows as well"
    assert [message.payload for message in heard] == [b"1"]


async def test_a_large_message_arrives_whole(bridge: Bridge) -> None:
    heard: list[Message] = []
    bridge.subscribe("topic.x", heard.append, lambda why: None)
    payload = bytes(range(256)) * 20_000
    bridge.publish("topic.x", payload)
    await bridge.request("nobody.here")
    assert heard[0].payload == payload


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPING", "a.>", "x" * 5_000, "é"])
async def test_what_would_kill_the_client_never_reaches_it(bridge: Bridge, subject: str) -> None:
    with pytest.raises(RefusedError):
        bridge.publish(subject)
    with pytest.raises(RefusedError):
        await bridge.request(subject)
    with pytest.raises(RefusedError):
        bridge.publish("a", bytes(bridge.payload_bytes_max + 1))
    assert (await bridge.request("nobody.here")).status == 503


async def test_what_is_written_behind_the_first_goes_out_together_and_in_order(
    nursery: trio.Nursery,
) -> None:
    written: list[bytes] = []
    link = Link(written.append, 1_000)
    link.publish("x", b"0", "", None)
    nursery.start_soon(link.flush)
    await trio.testing.wait_all_tasks_blocked()
    assert b"PUB x  1\r\n0\r\n" in written, "it was left behind before anybody flushed"
    for turn in (b"1", b"2"):
        written.clear()
        link.begin_turn()
        for n in (b"a", b"b", b"c"):
            link.publish("x", turn + n, "", None)
        link.begin_turn()
        link.publish("x", turn + b"d", "", None)
        await trio.testing.wait_all_tasks_blocked()
        sent = b"".join(b"PUB x  2\r\n%b\r\n" % (turn + n) for n in (b"a", b"b", b"c", b"d"))
        assert b"".join(written) == sent
        assert len(written) == 2


async def test_what_is_written_last_is_sent_before_the_connection_is_closed(
    nats_server: Any, bridge: Bridge
) -> None:
    heard: list[Message] = []
    bridge.subscribe("topic.x", heard.append, lambda why: None)
    await bridge.request("nobody.here")
    async with trio.open_nursery() as running:
        leaving = await connected(running, nats_server.url)
        for _ in range(3):
            leaving.publish("topic.x")
        running.cancel_scope.cancel()
    with trio.fail_after(2):
        while len(heard) < 3:  # noqa: ASYNC110 - A test may look.
            await trio.sleep(0.001)


async def test_headers_of_hostile_senders_are_read_without_an_error() -> None:
    header = b"NATS/1.0\r\nok: yes\r\nno colon\r\n: unnamed\r\nlatin: \xe9\r\nsp ace : x\r\n\r\n"
    headers = Message(b"", b"", header, b"").headers
    assert headers["ok"] == "yes"
    assert headers["latin"] == "\ufffd"
    assert Message(b"", b"", b"NATS/1.0 abc\r\n\r\n", b"").status == 0


# --- losing and finding the broker


async def test_it_starts_without_a_broker_and_connects_when_there_is_one(
    nats_server: Any, nursery: trio.Nursery
) -> None:
    nats_server.kill()
    bridge = Bridge(Address([nats_server.url]))
    await nursery.start(bridge.run)
    with pytest.raises(BrokerLostError, match="no connection to the broker"):
        await bridge.request("a")
    nats_server.start()
    with trio.fail_after(5):
        await bridge.wait_connected()
    assert (await bridge.request("nobody.here")).status == 503


async def test_when_the_connection_breaks_everything_that_waits_fails(
    nats_server: Any, bridge: Bridge
) -> None:
    lost: list[str] = []
    bridge.subscribe("service.x", lambda message: None, lost.append)

    async def ask() -> None:
        with pytest.raises(BrokerLostError, match="connection to the broker was lost"):
            await bridge.request("service.x", timeout_s=60)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.02)
            nats_server.kill()
        await bridge.wait_disconnected()
    assert len(lost) == 1
    assert not bridge.connected


async def test_what_was_refused_while_away_is_not_sent_later(
    nats_server: Any, nursery: trio.Nursery
) -> None:
    sender = await connected(nursery, nats_server.url)
    receiver = await connected(nursery, nats_server.url)
    nats_server.kill()
    with trio.fail_after(2):
        await sender.wait_disconnected()
        await receiver.wait_disconnected()
    with pytest.raises(BrokerLostError):
        sender.publish("topic.x", b"away")
    nats_server.start()
    with trio.fail_after(5):
        await receiver.wait_connected()
        heard: list[Message] = []
        receiver.subscribe("topic.x", heard.append, lambda why: None)
        await receiver.request("nobody.here")
        await sender.wait_connected()
        await sender.request("nobody.here")
        await receiver.request("nobody.here")
    assert not heard


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"-ERR 'Stale Connection'\r\n",
        b"-ERR 'Slow Consumer'\r\n",
        b"-ERR 'Maximum Payload Violation'\r\n",
        b"-ERR\r\n",
        b"GARBAGE\r\n",
        b"MSG a b c d e f\r\n",
        b"\xff" * 5000,
    ],
)
async def test_a_broker_that_talks_nonsense_or_hangs_up_is_connected_to_again(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    monkeypatch.setattr(link_module, "PING_INTERVAL_S", 0.1)
    broker = FakeBroker()

    async def misbehave(stream: trio.SocketStream) -> None:
        await stream.send_all(b"PONG\r\n" + words)
        if words:
            await trio.sleep(5)

    broker._behaviours = (misbehave, broker.stay)
    bridge = Bridge(Address([await broker.start(nursery)]))
    await nursery.start(bridge.run)
    with trio.fail_after(4):
        while broker.connections < 2:  # noqa: ASYNC110 - A test may look.
            await trio.sleep(0.01)
        await bridge.wait_connected()


async def test_a_frozen_broker_is_given_up(
    nats_server: Any, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "PING_INTERVAL_S", 0.05)
    bridge = await connected(nursery, nats_server.url)
    nats_server.freeze()
    with trio.fail_after(2):
        await bridge.wait_disconnected()


async def test_a_callback_that_raises_costs_the_connection_and_not_the_bridge(
    bridge: Bridge,
) -> None:
    def fail(message: Message) -> None:
        raise ValueError("a bug")

    bridge.subscribe("topic.x", fail, lambda why: None)
    bridge.publish("topic.x")
    with trio.fail_after(2):
        await bridge.wait_disconnected()
        await bridge.wait_connected()
    assert (await bridge.request("nobody.here")).status == 503


async def test_a_broker_that_takes_nothing_more_is_hung_up_on(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be sent would keep the connection open for ever."""
    monkeypatch.setattr(link_module, "PING_INTERVAL_S", 0.05)
    monkeypatch.setattr(bridge_module, "CLOSE_TIMEOUT_S", 0.05)
    hung_up = trio.Event()

    async def freeze(stream: trio.SocketStream) -> None:
        await stream.send_all(b"PONG\r\n")
        await trio.sleep(0.5)
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"PING\r\n")
        hung_up.set()

    broker = FakeBroker(info={"max_payload": 1 << 26})
    broker._behaviours = (freeze, broker.stay)
    bridge = await connected(nursery, await broker.start(nursery))
    bridge.publish("topic.x", bytes(1 << 25))
    with trio.fail_after(5):
        await hung_up.wait()


async def test_what_comes_right_behind_the_handshake_is_heard(nursery: trio.Nursery) -> None:
    ponged = trio.Event()

    async def ask(stream: trio.SocketStream) -> None:
        await stream.send_all(b"PONG\r\nPING\r\n")
        async for words in stream:
            if b"PONG\r\n" in words:
                ponged.set()

    await connected(nursery, await FakeBroker(ask).start(nursery))
    with trio.fail_after(2):
        await ponged.wait()


@pytest.mark.parametrize("piece", [1, 7, 64])
async def test_messages_that_come_in_pieces_are_put_together(
    nursery: trio.Nursery, piece: int
) -> None:
    words = (
        b"MSG topic.x 2 3\r\nabc\r\nPING\r\nHMSG topic.x 2 back 18 21\r\n"
        b"NATS/1.0\r\na: b\r\n\r\nd\r\n\r\n+OK\r\nMSG topic.x 2 0\r\n\r\n"
    )

    async def send(stream: trio.SocketStream) -> None:
        await stream.send_all(b"PONG\r\n")
        heard = b""
        while b"SUB topic.x" not in heard:
            heard += await stream.receive_some()
        for at in range(0, len(words), piece):
            await stream.send_all(words[at : at + piece])
            await trio.sleep(0.0001)
        async for _ in stream:
            pass

    bridge = await connected(nursery, await FakeBroker(send).start(nursery))
    messages: list[Message] = []
    bridge.subscribe("topic.x", messages.append, lambda why: None)
    with trio.fail_after(2):
        while len(messages) < 3:  # noqa: ASYNC110 - A test may look.
            await trio.sleep(0.001)
    assert messages == [
        Message(b"topic.x", b"", b"", b"abc"),
        Message(b"topic.x", b"back", b"NATS/1.0\r\na: b\r\n\r\n", b"d\r\n"),
        Message(b"topic.x", b"", b"", b""),
    ]


async def test_what_the_broker_does_not_permit_is_said_and_the_connection_lives(
    nursery: trio.Nursery,
) -> None:
    broker = FakeBroker()

    async def deny(stream: trio.SocketStream) -> None:
        await stream.send_all(b"PONG\r\n-ERR 'Permissions Violation for Publish to \"a\"'\r\n")
        async for _ in stream:
            pass

    broker._behaviours = (deny,)
    with structlog.testing.capture_logs() as logs:
        bridge = await connected(nursery, await broker.start(nursery))
        await trio.testing.wait_all_tasks_blocked(0.02)
    (denied,) = [log for log in logs if log["event"] == "broker_denied"]
    assert 'publish to "a"' in denied["reason"]
    assert bridge.connected


async def test_an_error_nobody_caught_costs_the_connection_and_not_the_bridge(
    bridge: Bridge,
) -> None:
    def fail() -> None:
        raise ValueError("a bug in the client")

    def fail_later(message: Message) -> None:
        asyncio.get_running_loop().call_soon(fail)

    bridge.subscribe("topic.x", fail_later, lambda why: None)
    bridge.publish("topic.x")
    with trio.fail_after(2):
        await bridge.wait_disconnected()
        await bridge.wait_connected()


async def test_when_it_is_cancelled_what_waits_fails_and_the_connection_is_closed() -> None:
    broker = FakeBroker()
    broker._behaviours = (broker.stay,)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            bridge = Bridge(Address([await broker.start(nursery)]))
            async with trio.open_nursery() as running:
                await running.start(bridge.run)
                await bridge.wait_connected()

                async def ask() -> None:
                    with pytest.raises(BrokerLostError):
                        await bridge.request("a")

                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.02)
                running.cancel_scope.cancel()
            await broker.closed.wait()
            nursery.cancel_scope.cancel()


# --- what no retry will mend, and what is said of it


@pytest.mark.parametrize("words", [b"-ERR 'Authorization Violation'\r\n"])
async def test_a_broker_that_never_accepted_us_is_a_configuration_error(
    nursery: trio.Nursery, words: bytes
) -> None:
    url = await FakeBroker(say(words)).start(nursery)
    with pytest.raises(BrokerConfigError, match=r"refuses us: .*Authorization.*NATS_CREDS_FILE"):
        await run(Bridge(Address([url])))


async def test_credentials_revoked_later_are_waited_for(nursery: trio.Nursery) -> None:
    broker = FakeBroker()

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.send_all(b"PONG\r\n")

    refuse = say(b"-ERR 'Authorization Violation'\r\n")
    broker._behaviours = (hang_up, refuse, refuse, broker.stay)
    with trio.fail_after(5):
        await connected(nursery, await broker.start(nursery))
        while broker.connections < 4:  # noqa: ASYNC110 - A test may look.
            await trio.sleep(0.01)


_JWT = "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n"
_SEED = f"-----BEGIN USER NKEY SEED-----\nSU{'A' * 56}\n------END USER NKEY SEED------\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"", "no credentials file"),
        (_JWT.encode(), "no credentials file"),
        (_SEED.encode(), "no credentials file"),
    ],
)
async def test_credentials_of_no_use_are_a_configuration_error(
    tmp_path: Path, nats_server: Any, content: bytes | None, reason: str
) -> None:
    creds_file = tmp_path / "user.creds"
    if content is not None:
        creds_file.write_bytes(content)
    with pytest.raises(BrokerConfigError, match=reason):
        await run(Bridge(Address([nats_server.url], creds_file=creds_file)))


async def test_tls_that_is_asked_for_and_not_offered_is_a_configuration_error(
    nats_server: Any,
) -> None:
    url = nats_server.url.replace("nats://", "tls://")
    with pytest.raises(BrokerConfigError, match="does not offer it"):
        await run(Bridge(Address([url])))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command (Debian: apt-get install openssl)")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    command = [openssl, "req", "-x509", *curve, "-nodes", "-days", "1", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


async def test_an_encrypted_connection_carries_the_same_and_ends_the_same(
    own_nats_server: Any, nursery: trio.Nursery, certificate: tuple[Path, Path]
) -> None:
    key, cert = certificate
    own_nats_server.kill()
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}'
    own_nats_server.start(tls)
    bridge = Bridge(Address([own_nats_server.url], tls_ca_file=cert))
    await nursery.start(bridge.run)
    for _ in range(2):
        with trio.fail_after(10):
            await bridge.wait_connected()
            heard: list[Message] = []
            bridge.subscribe("topic.x", heard.append, lambda why: None)
            payload = bytes(range(256)) * 4_000
            bridge.publish("topic.x", payload)
            assert (await bridge.request("nobody.here")).status == 503
            assert heard[0].payload == payload
            own_nats_server.kill()
            await bridge.wait_disconnected()
            own_nats_server.start(tls)


async def test_each_change_is_logged_once_however_long_it_lasts(
    nats_server: Any, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "RECONNECT_WAIT_S", 0.01)
    with structlog.testing.capture_logs() as logs:
        bridge = await connected(nursery, nats_server.url)
        nats_server.kill()
        await bridge.wait_disconnected()
        await trio.sleep(0.3)
        nats_server.start()
        await bridge.wait_connected()
    events = [log["event"] for log in logs]
    assert events[0] == events[-1] == "broker_connected"
    assert set(events[1:-1]) == {"broker_lost"}
    assert len(events) <= 5, logs  # The end of the connection, then why there is no other yet.


async def run(bridge: Bridge) -> None:
    with trio.fail_after(5):
        await bridge.run()
