"""Files of JSON lines, as evidence comes in: read one by one, a line cut short by a crash at the end left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class LinesError(Exception):
    """This file is not what it is given as; the message says where."""

    exit_code = 2  # Wrong usage, as far as the command line is concerned.


def read_lines(path: Path, kind: type[T], *, skips_torn: bool = False) -> Iterator[T]:
    """The lines of a file, each as one `kind`.

    `skips_torn` is for files that a process appends to again after it was killed within a line: what cannot be read is
    left out, as long as anything can.

    Raises:
        LinesError: the file cannot be read, or a line is not such a thing.
    """
    decode = msgspec.json.Decoder(kind).decode
    torn: LinesError | None = None
    count = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # Its writer died within it; nobody was told of it.
                try:
                    one = decode(line)
                except msgspec.MsgspecError as error:
                    torn = LinesError(f"{path}, line {number} is no {kind.__name__}: {error}")
                    if not skips_torn:
                        raise torn from error
                    continue
                count += 1
                yield one
    except OSError as error:
        raise LinesError(f"{path} cannot be read: {error.strerror}") from error
    if torn is not None and not count:
        raise torn
