"""HTTP/1.1 without I/O, as far as a payment provider and its client speak it: whole requests, whole replies."""

import re
from typing import Final

from runtime.chaos.conversation import FrameError, Part, Said, Toward

HEAD_BYTES_MAX: Final = 64 << 10
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class HttpConversation:
    """One connection of a client that sends its next request once it has the reply to the last."""

    def __init__(self) -> None:
        self._left = {toward: bytearray() for toward in Toward}
        self._asked = ""

    def hear(self, toward: Toward, chunk: bytes) -> list[Said]:
        left = self._left[toward]
        left += chunk
        heard = []
        while (size := _whole(left)) and len(left) >= size:
            heard.append(self._mean(toward, bytes(left[:size])))
            del left[:size]
        return heard

    def _mean(self, toward: Toward, wire: bytes) -> Said:
        first, second = wire.split(b" ", 2)[:2]
        if toward is Toward.SERVER:
            self._asked = f"{first.decode('latin-1')} {second.decode('latin-1')}"
            return Said(wire, Part.REQUEST, self._asked)
        return Said(wire, Part.ANSWER, f"{second[:3].decode('latin-1')} to {self._asked}")


def _whole(left: bytearray) -> int:
    """How many bytes the first message has, once its head is there; 0 before."""
    end = left.find(_HEAD_END)
    if end < 0:
        if len(left) > HEAD_BYTES_MAX:
            raise FrameError(f"a head of more than {HEAD_BYTES_MAX} bytes is not a provider's")
        return 0
    head = bytes(left[: end + 2])
    if _CHUNKED.search(head) or head.count(b" ", 0, head.find(b"\r\n")) < 1:
        raise FrameError(f"{head[:80]!r}: only messages with a Content-Length can be told apart")
    length = _LENGTH.search(head)
    return end + len(_HEAD_END) + (int(length[1]) if length else 0)
