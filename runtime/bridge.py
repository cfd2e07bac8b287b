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
import importlib.util
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
import structlog
import trio
import trio_asyncio
from nats.aio.client import Client
from nats.protocol import parser

from runtime.link import Link, Message, OnLost, OnMessage, Outgoing, Subscription
from runtime.log import BrokerConfigError, BrokerLostError

ANSWER_TIMEOUT_S = 5.0  # No fsync worth waiting for takes longer; then the outcome is unknown.
CONNECT_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 2.0
RECONNECT_WAIT_S = 0.2  # Short: shards and readers have a backoff of their own above this one.
PING_INTERVAL_S = 3.0  # A frozen broker is given up after three of these.

# nats-py ends a word at any white space, a server only at blanks and tabs: with nats-py's patterns
# one message that anybody put on a subject with a form feed in it breaks every connection that
# reads it, for ever.
_WORD = rb"([^ \t\r\n]+)[ \t]+"
parser.MSG_RE = re.compile(rb"\AMSG[ \t]+%b%b(%b)?(\d+)\r\n" % (_WORD, _WORD, _WORD))
parser.HMSG_RE = re.compile(rb"\AHMSG[ \t]+%b%b(%b)?(\d+)[ \t]+(\d+)\r\n" % (_WORD, _WORD, _WORD))

_logger = structlog.get_logger("runtime.bridge")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is, and who we are to it. One `tls://` URL or TLS file, and plain text is refused."""

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


class Bridge:
    """A connection to the broker for all of the process, renewed for as long as `run` runs."""

    payload_bytes_max = 1 << 20  # NATS's default, until a broker has told its own.
    has_jetstream = True  # Of the server we are connected to; in a cluster others may have it.

    def __init__(self, address: Address, *, name: str = "orders") -> None:
        self._address = address
        self._name = name
        self._link: Link | None = None
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
                refusal = await self._hold_one_connection()
                if refusal is not None:
                    break  # Raised outside of the loop, which would wrap it in a group.
                await trio.sleep(RECONNECT_WAIT_S)
        raise refusal

    @property
    def connected(self) -> bool:
        return self._link is not None

    async def wait_connected(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._link is None:
            await self._changed.wait()

    async def wait_disconnected(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._link is not None:
            await self._changed.wait()

    def leave_server(self, why: str) -> None:
        """Give this connection up for one to another server, where there are several."""
        if self._link is not None and len(self._address.servers) > 1:
            self._link.end(why)

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
        with trio.move_on_after(timeout_s):
            return await link.ask(subject, payload, headers)
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
        self._connected_link().publish(subject, payload, reply, headers)

    def publish_many(self, messages: Iterable[Outgoing]) -> None:
        """Write many messages at once, in order; each may be lost without a word."""
        self._connected_link().publish_many(messages)

    def subscribe(self, subject: str, on_message: OnMessage, on_lost: OnLost) -> Subscription:
        """Receive on `subject` until closed, or until this connection is lost."""
        return self._connected_link().subscribe(subject, on_message, on_lost)

    def new_inbox(self) -> str:
        """Make up a subject that nobody else uses."""
        return self._connected_link().new_inbox()

    def _connected_link(self) -> Link:
        if self._link is None:
            raise BrokerLostError(f"no connection to the broker: {self._trouble}")
        return self._link

    async def _hold_one_connection(self) -> BrokerConfigError | None:
        """Connect, and stay so while it lasts; return an error where trying again is of no use."""
        client = _Client()
        try:
            await self._connect(client)
            self.has_jetstream = client.has_jetstream
            self._use(client.link)
            await client.link.ended.wait()
            self._report(f"the connection ended: {client.last_error or client.link.why_ended}")
        except _TROUBLES as trouble:
            why = client.describe(trouble)
            if not self._was_accepted and _is_refusal(trouble):
                return BrokerConfigError(
                    f"the broker at {', '.join(self._address.servers)} refuses us: {why};"
                    " check NATS_URL, NATS_CREDS_FILE and the NATS_TLS_ files"
                )
            self._report(why)
        finally:
            self._use(None)
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_TIMEOUT_S):
                await client.close_quietly()
        return None

    async def _connect(self, client: "_Client") -> None:
        who = self._address
        if who.creds_file is not None:
            _check_creds(who.creds_file)
        await trio_asyncio.aio_as_trio(client.open)(
            servers=list(who.servers),
            name=self._name,
            tls=_tls_context(who),
            user_credentials=who.creds_file,
            max_reconnect_attempts=1,
            reconnect_time_wait=RECONNECT_WAIT_S,
            connect_timeout=CONNECT_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
        )
        if who.needs_tls and not client.is_encrypted:
            raise _NoTlsError(0, "TLS is asked for, and the broker does not offer it")

    def _use(self, link: Link | None) -> None:
        """Let one connection take the place of another, and fail what waits on the old one."""
        old, self._link = self._link, link
        if old is not None:
            old.fail_all("the connection to the broker was lost")
        if link is not None:
            self._was_accepted = True
            self._trouble = ""
            self.payload_bytes_max = link.payload_bytes_max
            _logger.info("broker_connected", servers=list(self._address.servers))
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
            self._link.end("the client failed")


class _Client(Client):
    """nats-py's client without its queues. Whatever is used of its private parts is used here."""

    link: Link

    def __init__(self) -> None:
        super().__init__()
        self._noted: set[str] = set()

    async def open(self, **options: Any) -> None:
        """Connect as an asyncio program would."""
        await self.connect(error_cb=self._note, allow_reconnect=False, **options)
        assert self._reading_task is not None
        assert self._transport is not None
        # A write never blocks (asyncio keeps what does not fit), and the end of the reading is the
        # one sign that comes however a connection ends.
        self.link = Link(self._transport.write, self.max_payload)
        self._reading_task.add_done_callback(self._on_reading_ended)

    def _on_reading_ended(self, task: asyncio.Task[None]) -> None:
        """Take what it ended with, which asyncio would report when it is collected: on the next connection."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, _TROUBLES):
            told = {"message": "the reading failed", "exception": error}
            task.get_loop().call_exception_handler(told)
        self.link.end("closed by the broker")

    @property
    def is_encrypted(self) -> bool:
        return bool(self._server_info.get("tls_required"))  # Then nats-py has upgraded, or failed.

    @property
    def has_jetstream(self) -> bool:
        return bool(self._server_info.get("jetstream"))

    def describe(self, trouble: BaseException) -> str:
        """What went wrong with each server, in an order that is always the same."""
        return "; ".join(sorted(self._noted)) or str(trouble) or type(trouble).__name__

    async def close_quietly(self) -> None:
        """Close it from trio, however far it got."""
        if self._transport is not None:
            with suppress(*_TROUBLES):
                await trio_asyncio.aio_as_trio(self.close)()

    async def _note(self, error: Exception) -> None:
        self._noted.add(str(error) or type(error).__name__)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self.link.receive(sid, Message(subject, reply, headers or b"", data))


_TROUBLES = (OSError, EOFError, nats.errors.Error, asyncio.TimeoutError)


class _NoTlsError(ssl.SSLError):
    """The broker does not offer what the configuration demands."""


class _CredsError(nats.errors.Error):
    """The credentials file is of no use."""


def _check_creds(creds_file: Path) -> None:
    """Refuse what nats-py cannot take: without a JWT in the file it would read on for ever."""
    try:
        text = creds_file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise _CredsError(f"the credentials file cannot be read: {error}") from error
    if not re.search(
        r"BEGIN NATS USER JWT-+\s+\S+\s(?s:.*)BEGIN USER NKEY SEED-+\s+SU\w{56}\s", text
    ):
        raise _CredsError(f"{creds_file} is no credentials file: it has no user JWT and seed in it")
    if importlib.util.find_spec("nkeys") is None:
        raise _CredsError("credentials need the package nkeys, which is not installed")


def _is_refusal(trouble: BaseException) -> bool:
    """Whether it is about who we are, so that trying again will not help."""
    text = str(trouble).lower()
    return isinstance(trouble, ssl.SSLCertVerificationError | _NoTlsError | _CredsError) or (
        "auth" in text and "timeout" not in text
    )


def _tls_context(who: Address) -> ssl.SSLContext | None:
    if not who.needs_tls:
        return None
    context = ssl.create_default_context(cafile=who.tls_ca_file)
    if who.tls_cert_file:
        context.load_cert_chain(who.tls_cert_file, who.tls_key_file)
    return context
