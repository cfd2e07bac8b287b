"""The bridge to the broker: the one place that knows asyncio, nats-py and trio-asyncio.

nats-py does what is hard to get right: the handshake, TLS, credentials, pings, the parser. What is
done for every message goes round it, because a turn of an asyncio loop under trio costs 28 us and
nats-py spends three or more on one message: a publish is one write to the socket, and a message
that arrives goes from the parser straight to its callback. A request with its answer crosses
between the two worlds once each way.

Every connection is a client of its own and is never repaired. When it breaks, everything that
waits on it fails at once, and the next one starts empty: nothing written to the old connection is
sent later, and no error of the server's leaves a closed client behind.
"""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
import outcome
import structlog
import trio
import trio_asyncio
from nats.aio.client import Client
from nats.nuid import NUID

from runtime.log import BrokerConfigError, BrokerLostError, RefusedError, check_subject

ANSWER_TIMEOUT_S = (
    5.0  # Ten times the slowest fsync worth waiting for; then the outcome is unknown.
)
CONNECT_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 2.0
RECONNECT_WAIT_S = 0.2  # Short: shards and readers have a backoff of their own above this one.
PING_INTERVAL_S = 3.0  # A frozen broker is given up after three of these.

_logger = structlog.get_logger("runtime.bridge")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is, and who we are to it. One `tls://` server or one TLS file: no plain text."""

    servers: Sequence[str]
    creds_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    @property
    def needs_tls(self) -> bool:
        return bool(self.tls_ca_file or self.tls_cert_file) or any(
            server.startswith("tls://") for server in self.servers
        )


@dataclass(slots=True)
class Message:
    """One message as it came off the wire; `header` is the raw block, empty where there is none."""

    subject: bytes
    reply: bytes
    header: bytes
    payload: bytes

    @property
    def status(self) -> int:
        """The broker's own word (`NATS/1.0 503`), 0 on an ordinary message."""
        return int(self.header[9:12] or 0) if self.header[8:9] == b" " else 0

    @property
    def headers(self) -> dict[str, str]:
        """Decoded; what is not ASCII arrives with replacement characters, never as an error."""
        lines = self.header.split(b"\r\n")[1:]
        pairs = (line.partition(b":") for line in lines if b":" in line)
        return {
            name.strip().decode("ascii", "replace"): value.strip().decode("ascii", "replace")
            for name, _, value in pairs
        }


OnMessage = Callable[[Message], None]  # Called between two reads: be quick, and do not raise.
OnLost = Callable[[str], None]  # With the words for a BrokerLostError.


class Bridge:
    """A connection to the broker for all of the process, renewed for as long as `run` runs."""

    payload_bytes_max = 1 << 20  # NATS's default, until a broker has told its own.

    def __init__(self, address: Address, *, name: str = "orders") -> None:
        self._address = address
        self._name = name
        self._link: _Link | None = None
        self._changed = trio.Event()
        self._trouble = "not tried yet"
        self._was_accepted = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, and connect again, until cancelled. Started as soon as it tries.

        Raises:
            BrokerConfigError: the broker refused us before it ever accepted us.

        """
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(self._on_loop_error)
            task_status.started()
            while True:
                await self._hold_one_connection()
                await trio.sleep(RECONNECT_WAIT_S)

    @property
    def connected(self) -> bool:
        return self._link is not None

    async def wait_connected(self) -> None:
        while self._link is None:
            await self._changed.wait()

    async def wait_disconnected(self) -> None:
        while self._link is not None:
            await self._changed.wait()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Message:
        """Publish, and wait for the one answer.

        Raises:
            RefusedError: it cannot be published; nothing was sent.
            BrokerLostError: not connected, connected no longer, or no answer in time.

        """
        await trio.lowlevel.checkpoint_if_cancelled()
        link = self._connected_link()
        answer = link.new_answer_subject()
        link.write(link.encode(subject, payload, answer, headers))
        with trio.move_on_after(timeout_s):
            return await link.wait_answer(answer)
        raise BrokerLostError(f"no answer on {subject} within {timeout_s:g} s")

    def publish(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Write one message to the socket. It may be lost without a word; a `request` is not."""
        link = self._connected_link()
        link.write(link.encode(subject, payload, reply, headers))

    def subscribe(self, subject: str, on_message: OnMessage, on_lost: OnLost) -> "Subscription":
        """Receive on `subject` until closed, or until this connection is lost."""
        return self._connected_link().subscribe(subject, on_message, on_lost)

    def new_inbox(self) -> str:
        """Make up a subject that nobody else uses."""
        return self._connected_link().new_inbox()

    def _connected_link(self) -> "_Link":
        if self._link is None:
            raise BrokerLostError(f"no connection to the broker: {self._trouble}")
        return self._link

    async def _hold_one_connection(self) -> None:
        client = _Client()
        try:
            await self._connect(client)
            link = _Link(client)
            self._turn(link)
            await link.ended.wait()
            self._report(f"the connection ended: {client.last_error or 'closed by the broker'}")
        except _TROUBLES as trouble:
            if not self._was_accepted and _is_refusal(trouble):
                raise BrokerConfigError(
                    f"the broker at {', '.join(self._address.servers)} refuses us: {trouble};"
                    " check NATS_URL, NATS_CREDS_FILE and the NATS_TLS_ files"
                ) from trouble
            self._report(str(trouble) or type(trouble).__name__)
        finally:
            self._turn(None)
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT_S):
                await _close(client)

    async def _connect(self, client: "_Client") -> None:
        who = self._address
        await trio_asyncio.aio_as_trio(client.connect)(
            servers=list(who.servers),
            name=self._name,
            tls=_tls_context(who),
            user_credentials=who.creds_file,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=RECONNECT_WAIT_S,
            connect_timeout=CONNECT_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            error_cb=_ignore,
        )
        if who.needs_tls and not client.is_encrypted:
            raise ssl.SSLError("TLS is asked for, and the broker does not offer it")

    def _turn(self, link: "_Link | None") -> None:
        """Let one connection take the place of another, and fail what waits on the old one."""
        old, self._link = self._link, link
        if old is not None:
            old.fail_all("the connection to the broker was lost")
        if link is not None:
            self._was_accepted = True
            self._trouble = ""
            self.payload_bytes_max = link.payload_bytes_max
            _logger.info("broker_connected", url=link.url, payload_bytes_max=link.payload_bytes_max)
        if old is not link:
            changed, self._changed = self._changed, trio.Event()
            changed.set()

    def _report(self, trouble: str) -> None:
        """Log a trouble once, however often it is met again while it lasts."""
        if trouble != self._trouble:
            self._trouble = trouble
            _logger.warning("broker_lost", trouble=trouble, servers=list(self._address.servers))

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Give up the connection on an error nobody caught; by default it would end the program."""
        error = context.get("exception")
        _logger.error("broker_client_failed", message=context.get("message"), exc_info=error)
        if self._link is not None:
            self._link.ended.set()


class Subscription:
    """What arrives on one subject over one connection."""

    def __init__(self, link: "_Link", sid: int) -> None:
        self._link = link
        self._sid = sid

    def close(self) -> None:
        """Receive no more. What still arrives is dropped."""
        self._link.unsubscribe(self._sid)


class _Link:
    """One connection, seen from trio: what is written to it and everything that waits on it."""

    def __init__(self, client: "_Client") -> None:
        self.ended = trio.Event()
        self.payload_bytes_max = client.max_payload
        self.url = client.connected_url.netloc if client.connected_url else ""
        self.write = client.write
        self._on_message = client.routes
        self._on_lost: dict[int, OnLost] = {}
        self._answers: dict[bytes, trio.lowlevel.Task] = {}
        self._sids = itertools.count(1)
        self._inbox = f"_INBOX.{NUID().next().decode()}"
        self._names = itertools.count(1)
        client.when_ended(self.ended.set)
        self.subscribe(f"{self._inbox}.a.*", self._on_answer, lambda _: None)

    def new_answer_subject(self) -> str:
        return f"{self._inbox}.a.{next(self._names)}"

    def new_inbox(self) -> str:
        return f"{self._inbox}.{next(self._names)}"

    def encode(
        self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
    ) -> bytes:
        check_subject(subject)
        header = _encode_headers(headers) if headers else b""
        bytes_total = len(header) + len(payload)
        if bytes_total > self.payload_bytes_max:
            raise RefusedError(
                f"{subject}: {bytes_total} bytes, and the broker takes {self.payload_bytes_max}"
            )
        address = f"{subject} {reply}".encode()
        if header:
            return b"HPUB %b %d %d\r\n%b%b\r\n" % (
                address,
                len(header),
                bytes_total,
                header,
                payload,
            )
        return b"PUB %b %d\r\n%b\r\n" % (address, bytes_total, payload)

    async def wait_answer(self, subject: str) -> Message:
        key = subject.encode()
        self._answers[key] = trio.lowlevel.current_task()

        def give_up(_: object) -> trio.lowlevel.Abort:
            del self._answers[key]
            return trio.lowlevel.Abort.SUCCEEDED

        message: Message = await trio.lowlevel.wait_task_rescheduled(give_up)
        return message

    def subscribe(self, subject: str, on_message: OnMessage, on_lost: OnLost) -> Subscription:
        sid = next(self._sids)
        self._on_message[sid] = on_message
        self._on_lost[sid] = on_lost
        self.write(f"SUB {subject}  {sid}\r\n".encode())
        return Subscription(self, sid)

    def unsubscribe(self, sid: int) -> None:
        if self._on_message.pop(sid, None) is not None:
            del self._on_lost[sid]
            self.write(f"UNSUB {sid}\r\n".encode())

    def fail_all(self, why: str) -> None:
        waiting, self._answers = self._answers, {}
        for task in waiting.values():
            trio.lowlevel.reschedule(task, outcome.Error(BrokerLostError(why)))
        self._on_message.clear()
        for on_lost in self._on_lost.values():
            on_lost(why)

    def _on_answer(self, message: Message) -> None:
        task = self._answers.pop(message.subject, None)
        if task is not None:  # Else it comes too late: its request has been given up.
            trio.lowlevel.reschedule(task, outcome.Value(message))


class _Client(Client):
    """nats-py's client, less its queues. All that is used of its private parts is used here."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: dict[int, OnMessage] = {}

    def write(self, command: bytes) -> None:
        """Hand whole protocol lines to the socket. Never blocks: asyncio keeps what does not fit."""
        assert self._transport is not None
        self._transport.write(command)

    def when_ended(self, on_end: Callable[[], None]) -> None:
        """Call `on_end` when reading ends, which it does however a connection ends."""
        assert self._reading_task is not None
        self._reading_task.add_done_callback(lambda _: on_end())

    @property
    def is_encrypted(self) -> bool:
        return bool(self._server_info.get("tls_required"))  # Then nats-py has upgraded, or failed.

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        on_message = self.routes.get(sid)
        if on_message is not None:
            on_message(Message(subject, reply, headers or b"", data))


async def _close(client: _Client) -> None:
    with suppress(*_TROUBLES):
        await trio_asyncio.aio_as_trio(client.close)()


_TROUBLES = (OSError, EOFError, nats.errors.Error, asyncio.TimeoutError)


async def _ignore(_error: Exception) -> None:
    """Leave errors to `last_error`: nats-py would log each with a traceback."""


def _is_refusal(trouble: BaseException) -> bool:
    """Whether it is about who we are, so that trying again will not help."""
    return isinstance(trouble, ssl.SSLError) or "auth" in str(trouble).lower()


def _tls_context(who: Address) -> ssl.SSLContext | None:
    if not who.needs_tls:
        return None
    context = ssl.create_default_context(cafile=who.tls_ca_file)
    if who.tls_cert_file:
        context.load_cert_chain(who.tls_cert_file, who.tls_key_file)
    return context


def _encode_headers(headers: Mapping[str, str]) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return "".join(("NATS/1.0\r\n", *lines, "\r\n")).encode()
