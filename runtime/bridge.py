"""The bridge to the broker: the one place that knows asyncio, nats-py and trio-asyncio.

nats-py does what is hard to get right: the handshake, TLS, credentials, the parser. What is done for
every message goes round it, because a turn of an asyncio loop under trio costs 28 us and nats-py
spends three or more on one message: a publish is one write to the socket, and what trio reads there
goes through the parser straight to its callback. Only where it is encrypted does asyncio read.

Every connection is a client of its own and is never repaired. When it breaks, everything that
waits on it fails at once, and the next one starts empty: nothing written to the old connection is
sent later, and no error of the server's leaves a closed client behind.
"""

import asyncio
import importlib.util
import os
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
from nats.aio.transport import TcpTransport
from nats.protocol import parser

from runtime.link import Link, Message, OnLost, OnMessage, Outgoing, Subscription
from runtime.log import BrokerConfigError, BrokerLostError

ANSWER_TIMEOUT_S = 5.0  # No fsync worth waiting for takes longer; then the outcome is unknown.
CONNECT_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 2.0
RECONNECT_WAIT_S = 0.2  # Short: shards and readers have a backoff of their own above this one.
READ_BYTES_MAX = 1 << 16

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
        is_shielded: bool = False,
    ) -> Message:
        """Publish, and wait for the one answer: `timeout_s` and a look at most, even cancelled where shielded.

        Raises:
            RefusedError: it cannot be published; nothing was sent.
            BrokerLostError: not connected, connected no longer, or no answer in time.

        """
        if not is_shielded:
            await trio.lowlevel.checkpoint_if_cancelled()
        link = self._connected_link()
        return await link.ask(subject, payload, headers, timeout_s, is_shielded=is_shielded)

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
            await client.carry()
            self._report(f"the connection ended: {client.link.why_ended}")
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


class _Client(Client, asyncio.Protocol):
    """nats-py's client, which connects; then its reading, its pings and its queues give way to a link.

    Whatever is used of its private parts is used here.
    """

    link: Link
    _before: asyncio.BaseProtocol

    def __init__(self) -> None:
        super().__init__()
        self._noted: set[str] = set()
        self._wire: asyncio.Transport | None = None

    async def open(self, **options: Any) -> None:
        """Connect as an asyncio program would, then take the connection over."""
        await self.connect(error_cb=self._note, allow_reconnect=False, **options)
        assert isinstance(self._transport, TcpTransport)
        assert self._transport._io_writer is not None  # noqa: SLF001 - The one way to the socket.
        wire = self._transport._io_writer.transport  # noqa: SLF001 - As above.
        assert isinstance(wire, asyncio.Transport)
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            assert task is not None
            task.cancel()
        # A write never blocks: asyncio keeps what does not fit.
        self.link = Link(wire.write, self.max_payload)
        self._wire, self._before = wire, wire.get_protocol()
        wire.set_protocol(self)
        if wire.is_closing():
            raise ConnectionResetError("closed by the broker")
        if not self.is_encrypted:
            wire.pause_reading()
        await self._take_what_came()

    async def _take_what_came(self) -> None:
        """Take in what was read behind the handshake, and nobody has looked at."""
        assert isinstance(self._transport, TcpTransport)
        assert isinstance(self._before, asyncio.Protocol)
        self._before.eof_received()  # There it ends.
        while not self._transport.at_eof():  # type: ignore[no-untyped-call]  # nats-py's has no types.
            self.data_received(await self._transport.read(READ_BYTES_MAX))

    async def carry(self) -> None:
        """Take in what the broker sends, until the link ends."""
        with self.link.life:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.link.ping)
                nursery.start_soon(self.link.look)
                nursery.start_soon(self.link.flush)
                if not self.is_encrypted:  # Else asyncio reads, decrypts and calls `data_received`.
                    nursery.start_soon(self._read)

    async def _read(self) -> None:
        """Read from trio: by way of asyncio it takes three turns more."""
        assert self._wire is not None
        socket = self._wire.get_extra_info("socket")
        while True:
            await trio.lowlevel.wait_readable(socket)
            try:
                data = os.read(socket.fileno(), READ_BYTES_MAX)
            except BlockingIOError:
                continue
            except OSError as error:
                return self.link.end(str(error))
            if not data:
                return self.link.end("closed by the broker")
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Put what was read through the parser, which waits for nothing that it calls here."""
        if self.link.has_ended:
            return
        self.link.begin_turn()
        try:
            self._ps.parse(data).send(None)
        except StopIteration:
            pass
        except nats.errors.Error as error:
            self.link.end(str(error))
        except Exception as error:  # noqa: BLE001 - Of whoever is called with a message.
            told = {"message": "the reading failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
            self.link.end("the client failed")

    def connection_lost(self, exc: Exception | None) -> None:
        """End the link before asyncio closes the socket, which nobody may wait for from then on."""
        self.link.end(str(exc or "closed by the broker"))
        self._before.connection_lost(exc)  # nats-py waits for that when it closes.

    @property
    def is_encrypted(self) -> bool:
        return self._wire is not None and self._wire.get_extra_info("sslcontext") is not None

    @property
    def has_jetstream(self) -> bool:
        return bool(self._server_info.get("jetstream"))

    def describe(self, trouble: BaseException) -> str:
        """What went wrong with each server, in an order that is always the same."""
        return "; ".join(sorted(self._noted)) or str(trouble) or type(trouble).__name__

    async def close_quietly(self) -> None:
        """Close it from trio, however far it got."""
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True), suppress(*_TROUBLES):
            if self._transport is not None:
                await trio_asyncio.aio_as_trio(self.close)()
        if self._wire is not None:
            self._wire.abort()  # It may wait for a broker that takes nothing more.

    async def _note(self, error: Exception) -> None:
        self._noted.add(str(error) or type(error).__name__)

    # --- what the parser calls: nothing here may wait ---

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg:
            _logger.warning("broker_denied", reason=err_msg)
        else:  # After anything else the broker hangs up.
            self.link.end(f"the broker says {err_msg}")

    async def _process_ping(self) -> None:
        self.link.pong()

    async def _process_pong(self) -> None:
        self.link.hear_pong()

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
