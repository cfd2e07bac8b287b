"""The channel between the load and the instance it measures: frames over a Unix socket, many orders in one read.

A frame is its kind (1 byte), a number that the load chooses (4 bytes), the length of what follows (4), and a payload.
What the channel costs the instance is a row of its own, `orders bench --rows channel`: 0.01 ms of CPU an order.
"""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct

_HEAD = Struct("<BII")


class Kind(IntEnum):
    """What a frame asks or tells."""

    # To the instance.
    ASK = 1  # An OrderCreated: place it, and tell when it is confirmed.
    ASK_AND_LEAVE = 2  # An OrderCreated: place it, and tell when its stock is reserved.
    WATCH = 3  # An order id: tell when it is confirmed.
    ECHO = 4  # An OrderCreated: read it, and do nothing.
    COMMAND = 5  # JSON, see `runtime.bench.instance`.
    # To the load.
    DONE = 6  # It is as it should be.
    FAILED = 7  # It will never be; the payload says why.
    ANSWER = 8  # JSON.


Frame = tuple[Kind, int, bytes]


def frame(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    return _HEAD.pack(kind, number, len(payload)) + payload


class Frames:
    """Cuts what is received into frames."""

    def __init__(self) -> None:
        self._received = b""

    def feed(self, chunk: bytes | bytearray) -> Iterator[Frame]:
        """The frames that are whole now."""
        received, at = self._received + chunk, 0
        while len(received) - at >= _HEAD.size:
            kind, number, length = _HEAD.unpack_from(received, at)
            end = at + _HEAD.size + length
            if end > len(received):
                break
            yield Kind(kind), number, received[at + _HEAD.size : end]
            at = end
        self._received = received[at:]
