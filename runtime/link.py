"""One connection to the broker, seen from trio: what is written to it, and all that waits on it."""

import itertools
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import outcome
import trio

from runtime.log import BrokerLostError, RefusedError, check_subject


@dataclass(slots=True)
class Message:
    """One message as it came off the wire; `header` is the raw block, empty where there is none."""

    subject: bytes
    reply: bytes
    header: bytes
    payload: bytes

    @property
    def status(self) -> int:
        """What the broker itself has to say (`NATS/1.0 503`); 0 on an ordinary message."""
        code = self.header[9:12]
        return int(code) if self.header[8:9] == b" " and code.isdigit() else 0

    @property
    def headers(self) -> dict[str, str]:
        return decode_headers(self.header)


PING_INTERVAL_S = 3.0
PINGS_OPEN_MAX = 3
LOOK_PERIOD_S = 0.25

Outgoing = tuple[str, bytes, Mapping[str, str] | None]  # Subject, payload, headers.
OnMessage = Callable[[Message], None]  # Called between two reads: be quick, and do not raise.
OnLook = Callable[[float], None]
OnLost = Callable[[str], None]  # With the words for a BrokerLostError.


class Link:
    """What one connection carries. It is used until it ends, and never again."""

    def __init__(self, write: Callable[[bytes], None], payload_bytes_max: int) -> None:
        self.life = trio.CancelScope()
        """Cancelled when the link ends."""
        self.why_ended = ""
        self.payload_bytes_max = payload_bytes_max
        self._write = write
        self._has_written = False  # Since the last read.
        self._behind: list[bytes] = []
        self._flusher = trio.lowlevel.ParkingLot()
        self._on_message: dict[int, OnMessage] = {}
        self._on_lost: dict[int, OnLost] = {}
        self._on_look: dict[int, OnLook] = {}
        self._asking: dict[bytes, _Asking] = {}
        self._pings_open = 0
        self._names = itertools.count(1)
        self._inbox = f"_INBOX.{uuid.uuid4().hex}"
        self.subscribe(f"{self._inbox}.answer.*", self._on_answer, lambda _: None)

    def end(self, why: str) -> None:
        """Use it no more. The first reason counts."""
        self.why_ended = self.why_ended or why
        self.life.cancel()

    @property
    def has_ended(self) -> bool:
        return self.life.cancel_called

    async def ping(self) -> None:
        """Ask the broker for a word from time to time, and end the link when it is silent."""
        while self._pings_open < PINGS_OPEN_MAX:
            self._send(b"PING\r\n")
            self._pings_open += 1
            await trio.sleep(PING_INTERVAL_S)
        self.end("the broker does not answer: it is frozen, or not reached any more")

    def begin_turn(self) -> None:
        """Something has been read, and is about to be received."""
        self._has_written = bool(self._behind)

    def _send(self, words: bytes) -> None:
        """Write at once; what others write before the next read follows a turn later, together.

        A write is a system call here and a wake-up there: under load, where one read brings many answers and each is
        followed by a write, this saves nearly half of them, and a fifth of the broker's CPU.
        """
        if not self._has_written:
            self._has_written = True
            self._write(words)
            return
        self._behind.append(words)
        if len(self._behind) == 1:
            self._flusher.unpark()

    async def flush(self) -> None:
        """Write what has been left for later, for as long as the link lives."""
        while True:
            if not self._behind:
                await self._flusher.park()
            behind, self._behind = self._behind, []
            self._write(b"".join(behind))

    async def look(self) -> None:
        """Look from time to time for what has waited too long: a deadline for each wait costs more than the wait."""
        while True:
            await trio.sleep(LOOK_PERIOD_S)
            now_s = trio.current_time()
            for key, asking in list(self._asking.items()):
                if asking.until_s <= now_s:
                    del self._asking[key]
                    why = f"no answer on {asking.subject} within {asking.timeout_s:g} s"
                    _fail(asking.task, why)
            for on_look in list(self._on_look.values()):
                on_look(now_s)

    def pong(self) -> None:
        self._send(b"PONG\r\n")

    def hear_pong(self) -> None:
        self._pings_open = 0

    def publish(
        self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
    ) -> None:
        self._send(self._encode(subject, payload, reply, headers))

    def publish_many(self, messages: Iterable[Outgoing]) -> None:
        """Publish in order, with one write."""
        self._send(b"".join(self._encode(s, payload, "", h) for s, payload, h in messages))

    def _encode(
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
            sizes = b"%d %d" % (len(header), bytes_total)
            return b"HPUB %b %b\r\n%b%b\r\n" % (address, sizes, header, payload)
        return b"PUB %b %d\r\n%b\r\n" % (address, bytes_total, payload)

    async def ask(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        timeout_s: float,
        *,
        is_shielded: bool,
    ) -> Message:
        """Publish, and wait for the answer, at most until the connection is lost."""
        reply = f"{self._inbox}.answer.{next(self._names)}"
        self.publish(subject, payload, reply, headers)
        key = reply.encode()
        until_s = trio.current_time() + timeout_s
        self._asking[key] = _Asking(trio.lowlevel.current_task(), subject, timeout_s, until_s)

        def give_up(_: object) -> trio.lowlevel.Abort:
            if is_shielded:
                return trio.lowlevel.Abort.FAILED
            del self._asking[key]
            return trio.lowlevel.Abort.SUCCEEDED

        message: Message = await trio.lowlevel.wait_task_rescheduled(give_up)
        return message

    def subscribe(self, subject: str, on_message: OnMessage, on_lost: OnLost) -> "Subscription":
        sid = next(self._names)
        self._on_message[sid] = on_message
        self._on_lost[sid] = on_lost
        self._send(f"SUB {subject}  {sid}\r\n".encode())
        return Subscription(self, sid)

    def unsubscribe(self, sid: int) -> None:
        if self._on_message.pop(sid, None) is not None:
            del self._on_lost[sid]
            self._on_look.pop(sid, None)
            self._send(f"UNSUB {sid}\r\n".encode())

    def watch(self, sid: int, on_look: OnLook) -> None:
        if sid in self._on_message:
            self._on_look[sid] = on_look

    def new_inbox(self) -> str:
        return f"{self._inbox}.{next(self._names)}"

    def receive(self, sid: int, message: Message) -> None:
        on_message = self._on_message.get(sid)
        if on_message is not None:  # Else it was on its way when the subscription was closed.
            on_message(message)

    def fail_all(self, why: str) -> None:
        """Tell everything that waits that this connection is over."""
        asking, self._asking = self._asking, {}
        for asked in asking.values():
            _fail(asked.task, why)
        self._on_message.clear()
        self._on_look.clear()
        for on_lost in self._on_lost.values():
            on_lost(why)

    def _on_answer(self, message: Message) -> None:
        asking = self._asking.pop(message.subject, None)
        if asking is not None:  # Else it comes too late: nobody waits for it any more.
            trio.lowlevel.reschedule(asking.task, outcome.Value(message))


@dataclass(slots=True)
class _Asking:
    """A task that waits for the answer to what it has published on `subject`."""

    task: trio.lowlevel.Task
    subject: str
    timeout_s: float
    until_s: float


def _fail(task: trio.lowlevel.Task, why: str) -> None:
    trio.lowlevel.reschedule(task, outcome.Error(BrokerLostError(why)))


class Subscription:
    """What arrives on one subject over one connection."""

    def __init__(self, link: Link, sid: int) -> None:
        self._link = link
        self._sid = sid

    def watch(self, on_look: OnLook) -> None:
        """Call `on_look` every `LOOK_PERIOD_S` with the current time, for as long as this is open."""
        self._link.watch(self._sid, on_look)

    def close(self) -> None:
        self._link.unsubscribe(self._sid)


def _encode_headers(headers: Mapping[str, str]) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return "".join(("NATS/1.0\r\n", *lines, "\r\n")).encode()


def decode_headers(block: bytes) -> dict[str, str]:
    """Decode a raw header block; what is not ASCII becomes a replacement character, never an error."""
    lines = block.split(b"\r\n")[1:]
    pairs = (line.partition(b":") for line in lines if b":" in line)
    return {
        name.strip().decode("ascii", "replace"): value.strip().decode("ascii", "replace")
        for name, _, value in pairs
    }
