"""What two ends say to each other over one connection, cut into whole frames: what a proxy decides on."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Toward(StrEnum):
    """Where a frame goes."""

    SERVER = "to the server"
    CLIENT = "to the client"


class Part(StrEnum):
    """What a frame is for those who talk."""

    PUBLISH = "publish"
    PUB_ACK = "publish answered"
    REQUEST = "request"
    ANSWER = "answer"
    DELIVERY = "delivery"
    STATUS = "status"
    """The broker's own word in the place of a delivery: a heartbeat, or the end of a pull."""
    CHATTER = "chatter"
    """Greetings, subscriptions, pings."""


@dataclass(frozen=True, slots=True)
class Said:
    """One whole frame: `wire` is every byte of it, `about` the subject or path that it concerns."""

    wire: bytes
    part: Part
    about: str


class FrameError(Exception):
    """These bytes are not what this connection was to carry."""


class Conversation(Protocol):
    """Reads one connection, both ways. No I/O; all that is put in comes out, in order and unchanged."""

    def hear(self, toward: Toward, chunk: bytes) -> list[Said]:
        """Return the frames that are whole with these bytes.

        Raises:
            FrameError: it cannot be read; nothing of it is ever passed on.
        """
        ...
