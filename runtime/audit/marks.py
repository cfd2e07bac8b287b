"""Marks: when which fault was injected, and when it was healed. JSON lines, written by whoever breaks things."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from runtime.audit.lines import read_lines


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault: `row` as in the table of faults ("F6"), `name` what was done ("kill -9 leader").

    Times are wall-clock milliseconds; `healed_ms` is 0 for as long as it lasts.
    """

    at_ms: int
    row: str
    name: str
    healed_ms: int = 0


def read_marks(path: Path) -> Iterator[Mark]:
    """The marks in a file.

    Raises:
        LinesError: a line is none.
    """
    return read_lines(path, Mark)
