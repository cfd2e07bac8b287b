"""JetStream's own requests and answers: JSON over request and reply, with its errors in our words."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from runtime.bridge import ANSWER_TIMEOUT_S, Bridge
from runtime.link import Message, decode_headers
from runtime.log import BrokerConfigError, BrokerLostError, FencedError, LogError, RefusedError

FENCE: Final = "Nats-Expected-Last-Subject-Sequence"
FENCE_SUBJECT: Final = f"{FENCE}-Subject"  # The fence stands there instead of on the message's own.
STREAM_NOT_FOUND: Final = 10059
_NO_MESSAGE: Final = 10037
_WRONG_LAST_SEQUENCE: Final = {10071, 10164}
_NOT_ENABLED: Final = {10039, 10076}  # JetStream is off for the account, for the server.
_OVERLAPS: Final = 10065  # Another stream takes our subjects.
_FULL: Final = {10023, 10028, 10047}  # Resources, memory, storage: nothing was stored.
_STORE_FAILED: Final = 10077  # Of a limit ("maximum ...": not stored) or of the disk (who knows).


class ApiError(msgspec.Struct, frozen=True):
    """An error as JetStream words it. `err_code` is precise, `code` only classifies, as in HTTP."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct, frozen=True):
    seq: int = 0
    error: ApiError | None = None


class _Answer(msgspec.Struct, frozen=True):
    error: ApiError | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Stored:
    """One message as a stream has it; `time` is RFC 3339, `header` the raw block."""

    seq: int
    time: str
    header: bytes
    payload: bytes


class Api:
    """The JetStream API over a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.has_replicas = True
        """Until known otherwise: then any of them answers a direct read, also one that lags behind."""

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        is_shielded: bool = False,
    ) -> int:
        """Store one message; return its sequence once it is durable. Shielded, it is not cancelled.

        Raises:
            FencedError: an expected sequence in `headers` was not the newest.
            RefusedError: nothing was stored.
            BrokerLostError: it may or may not have been stored.

        """
        message = await self.bridge.request(
            subject, payload, headers=headers, is_shielded=is_shielded
        )
        _check_served(message, subject)
        ack = _decode_ack(message.payload)
        if ack.error is not None:
            raise translated(ack.error, subject)
        return ack.seq

    async def call(self, operation: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Ask for something to be done, such as `STREAM.INFO.ORDERS`, and return the answer.

        Raises:
            LogError: like `publish`.

        """
        error, answer = await self.try_call(operation, arguments)
        if error is not None:
            raise translated(error, operation)
        return answer

    async def try_call(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> tuple[ApiError | None, Any]:
        """Like `call`, for those who can do something about an error."""
        payload = _encode(arguments) if arguments is not None else b""
        message = await self.bridge.request(f"$JS.API.{operation}", payload, timeout_s=timeout_s)
        _check_served(message, operation)
        return _decode_answer(message.payload).error, msgspec.json.decode(message.payload)

    async def newest(self, stream: str, subject: str) -> Stored | None:
        """The newest message on a subject; where there are replicas, as their leader has it.

        One that lags would show a predecessor's record for ours, and an order that was accepted as unknown.
        """
        if self.has_replicas:
            return await self._ask_leader(stream, {"last_by_subj": subject})
        return await self._ask_any(f"{stream}.{subject}", b"")

    async def next(self, stream: str, seq: int, subject: str) -> Stored | None:
        """The first message on a subject from `seq` on; where there are replicas, as their leader has it."""
        which = {"seq": seq, "next_by_subj": subject}
        if self.has_replicas:
            return await self._ask_leader(stream, which)
        return await self._ask_any(stream, _encode(which))

    async def _ask_any(self, what: str, which: bytes) -> Stored | None:
        operation = f"DIRECT.GET.{what}"
        message = await self.bridge.request(f"$JS.API.{operation}", which)
        if message.status == 404:
            return None
        _check_served(message, operation)
        headers = message.headers
        seq, time = int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"]
        return Stored(seq, time, message.header, message.payload)

    async def _ask_leader(self, stream: str, which: Mapping[str, Any]) -> Stored | None:
        operation = f"STREAM.MSG.GET.{stream}"
        error, answer = await self.try_call(operation, which)
        if error is not None:
            if error.err_code == _NO_MESSAGE:
                return None
            raise translated(error, operation)
        message = answer["message"]
        header, payload = (base64.b64decode(message.get(part, "")) for part in ("hdrs", "data"))
        return Stored(message["seq"], message["time"], header, payload)


def own_headers(header: bytes) -> Mapping[str, str]:
    """The headers that came with the append, less those that were for the broker or are from it."""
    if _ONLY_FENCED.fullmatch(header):
        return _NO_HEADERS  # Every record of a journal: not worth 5 us each.
    headers = decode_headers(header).items()
    return {name: value for name, value in headers if not name.lower().startswith("nats-")}


_NO_HEADERS: Final[Mapping[str, str]] = {}
_ONLY_FENCED: Final = re.compile(rb"(NATS/1\.0\r\n(%b: \d+\r\n)?\r\n)?" % FENCE.encode())


def _check_served(message: Message, what: str) -> None:
    """Raise if it is the broker that answers, and not JetStream."""
    if message.status:
        raise BrokerLostError(
            f"{what}: JetStream does not answer ({message.header[9:].strip().decode()}):"
            " the stream is missing, or has no leader yet"
        )


def translated(error: ApiError, what: str) -> LogError:
    text = f"{what}: {error.description} (JetStream error {error.err_code})"
    if error.err_code in _WRONG_LAST_SEQUENCE:
        return FencedError(text)
    if error.err_code in _NOT_ENABLED:
        return BrokerConfigError(f"{text}: enable JetStream for this account of the broker")
    if error.err_code == _OVERLAPS:
        return BrokerConfigError(f"{text}: delete that stream, or use an account of its own")
    full = error.err_code == _STORE_FAILED and "maximum" in error.description
    if full or error.err_code in _FULL or 400 <= error.code < 500:
        return RefusedError(text)
    return BrokerLostError(text)
