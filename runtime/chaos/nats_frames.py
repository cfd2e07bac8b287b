"""The NATS client protocol without I/O: bytes in any pieces go in, whole frames and what they mean come out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runtime.chaos.conversation import FrameError, Part, Said, Toward

LINE_BYTES_MAX: Final = 1 << 20  # A CONNECT carries credentials, an INFO a whole cluster.
PAYLOAD_BYTES_MAX: Final = 64 << 20  # What a server may allow at most.

_WORD: Final = re.compile(rb"[^ \t\r\n]+")  # A server ends a word at these alone.
_HEADED: Final = frozenset({b"HPUB", b"HMSG"})
_WORDS: Final[Mapping[bytes, tuple[int, int]]] = {  # How many with the verb, at least and at most.
    b"PUB": (3, 4),
    b"HPUB": (4, 5),
    b"MSG": (4, 5),
    b"HMSG": (5, 6),
    b"SUB": (3, 4),
    b"UNSUB": (2, 3),
    b"PING": (1, 1),
    b"PONG": (1, 1),
    b"+OK": (1, 1),
}
_PAYLOAD: Final = frozenset({b"PUB", b"HPUB", b"MSG", b"HMSG"})
_FREE_TEXT: Final = frozenset({b"INFO", b"CONNECT", b"-ERR"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the protocol. `wire` is every byte, `words` its first line, `body_at` where that ends."""

    wire: bytes
    words: tuple[bytes, ...]
    body_at: int

    @property
    def verb(self) -> bytes:
        return self.words[0]

    @property
    def subject(self) -> bytes:
        return self.words[1] if self.verb in _PAYLOAD or self.verb == b"SUB" else b""

    @property
    def reply(self) -> bytes:
        """Where an answer is wanted; empty where none is."""
        if self.verb not in _PAYLOAD:
            return b""
        fewest, most = _WORDS[self.verb]
        sizes = 2 if self.verb in _HEADED else 1
        return self.words[most - sizes - 1] if len(self.words) > fewest else b""

    @property
    def header(self) -> bytes:
        """The raw block, empty where there is none."""
        if self.verb not in _HEADED:
            return b""
        return self.wire[self.body_at : self.body_at + int(self.words[-2])]

    @property
    def payload(self) -> bytes:
        if self.verb not in _PAYLOAD:
            return b""
        start = self.body_at + len(self.header)
        return self.wire[start : self.body_at + int(self.words[-1])]


class Parser:
    """Cuts one direction of a connection into frames."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that are whole with these bytes.

        Raises:
            FrameError: this is not NATS, or not plain text.
        """
        self._left += chunk
        frames = []
        start = 0
        while (frame := self._next(start)) is not None:
            frames.append(frame)
            start += len(frame.wire)
        del self._left[:start]
        return frames

    def _next(self, start: int) -> Frame | None:
        end = self._left.find(b"\n", start) + 1
        if not end:
            if len(self._left) - start > LINE_BYTES_MAX:
                raise FrameError(f"a line of more than {LINE_BYTES_MAX} bytes is not NATS")
            return None
        line = bytes(self._left[start:end])
        words = _words(line)
        body_at = end - start
        if words[0] not in _PAYLOAD:
            return Frame(line, words, body_at)
        whole = end + _size(words, line) + 2  # The CR LF after the payload.
        if len(self._left) < whole:
            return None
        return Frame(bytes(self._left[start:whole]), words, body_at)


def _words(line: bytes) -> tuple[bytes, ...]:
    words = _WORD.findall(line)
    verb = words[0].upper() if words else b""
    if verb in _FREE_TEXT:
        return (verb,)
    fewest, most = _WORDS.get(verb, (0, -1))
    if not fewest <= len(words) <= most:
        raise FrameError(
            f"{line[:80]!r} is not a line of the NATS protocol (with TLS, nobody can look inside)"
        )
    return (verb, *words[1:])


def _size(words: tuple[bytes, ...], line: bytes) -> int:
    sizes = words[-2:] if words[0] in _HEADED else words[-1:]
    if not all(size.isdigit() for size in sizes):
        raise FrameError(f"{line[:80]!r} has no size where one belongs")
    total = int(sizes[-1])
    if total > PAYLOAD_BYTES_MAX or int(sizes[0]) > total:
        raise FrameError(f"{line[:80]!r} claims a size that cannot be")
    return total


class NatsConversation:
    """One connection to a broker: tells the answer to a publish from other answers, and from deliveries."""

    def __init__(self) -> None:
        self._parsers = {toward: Parser() for toward in Toward}
        self._asked: dict[bytes, tuple[Part, bytes]] = {}

    def hear(self, toward: Toward, chunk: bytes) -> list[Said]:
        mean = self._asks if toward is Toward.SERVER else self._answers
        frames = self._parsers[toward].feed(chunk)
        return [Said(frame.wire, *mean(frame)) for frame in frames]

    def _asks(self, frame: Frame) -> tuple[Part, str]:
        if frame.verb not in _PAYLOAD:
            return Part.CHATTER, frame.verb.decode()
        subject = frame.subject
        is_api = subject.startswith(b"$JS.")
        if frame.reply and not subject.startswith(_PULL):  # A pull is answered by deliveries.
            self._asked[frame.reply] = Part.ANSWER if is_api else Part.PUB_ACK, subject
        return Part.REQUEST if is_api else Part.PUBLISH, _text(subject)

    def _answers(self, frame: Frame) -> tuple[Part, str]:
        if frame.verb not in _PAYLOAD:
            return Part.CHATTER, frame.verb.decode()
        if frame.reply.startswith(b"$JS.ACK."):
            return Part.DELIVERY, _text(frame.subject)
        answered = self._asked.pop(frame.subject, None)
        if answered is not None:
            return answered[0], _text(answered[1])
        if _STATUS.match(frame.header):
            return Part.STATUS, _text(frame.header[9:].split(b"\r\n", 1)[0])
        return Part.DELIVERY, _text(frame.subject)


_PULL: Final = b"$JS.API.CONSUMER.MSG.NEXT."
_STATUS: Final = re.compile(rb"NATS/1\.0 \d{3}")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
