"""How much, and for how long, the edge puts up with."""

from dataclasses import dataclass, replace
from typing import Self

KIB = 1024
LINE_BYTES_MAX = 256  # Of an order's JSON: its longest fields, and room for white space.


@dataclass(frozen=True, slots=True)
class Limits:
    connections_max: int = (
        800  # Leaves 200 of the usual 1,024 file descriptors for everything else.
    )
    target_bytes_max: int = 8 * KIB
    headers_bytes_max: int = 16 * KIB
    headers_max: int = 100
    body_bytes_max: int = 64 * KIB  # A hundred lines take 10 KiB.
    chunks_max: int = (
        1_000  # Each costs some 20 us: a body in single bytes would hold everyone up for a second.
    )
    head_s: float = 5.0  # From the connection (or the last answer) to a whole request head.
    body_s: float = 8.0  # From the head to the end of the body.
    write_s: float = 10.0  # For the client to take what it is sent.
    linger_s: float = 1.0  # Time to read our last words before the connection is reset.
    grace_s: float = 5.0  # For requests under way when the server stops.

    @classmethod
    def of_lines(cls, lines_max: int) -> Self:
        """The limits of a shop whose orders may have so many lines."""
        usual = cls()
        bytes_max = max(usual.body_bytes_max, lines_max * LINE_BYTES_MAX)
        return replace(usual, body_bytes_max=bytes_max)

    @property
    def head_bytes_max(self) -> int:
        return self.target_bytes_max + self.headers_bytes_max + KIB
