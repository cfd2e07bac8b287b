"""The simulated provider's ledger: one JSON line for each movement of money, appended and never changed.

Money has moved once its line is written. With a file it stays moved when the process is killed (and, with `fsync`,
when the machine is), so a repeated key finds its charge after a restart too.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec


class LedgerError(Exception):
    """This file cannot serve as the ledger; the message says what is wrong with it."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """One movement. A capture is its own `charge_id`, and keeps the card's `token`."""

    id: str
    kind: Literal["capture", "refund"]
    reference: str
    amount_minor: int
    currency: str
    key: str
    charge_id: str
    at_ms: int
    token: str = ""


class Ledger:
    """Lines in memory, by key, by charge and by reference. `open_ledger` gives one that a file backs."""

    def __init__(
        self, lines: Sequence[Line] = (), *, write: Callable[[bytes], None] | None = None
    ) -> None:
        self._write = write
        self._by_key: dict[str, Line] = {}
        self._captures: dict[str, Line] = {}
        self._by_reference: dict[str, tuple[Line, ...]] = {}
        for line in lines:
            self._index(line)

    def append(self, line: Line) -> None:
        """Add a line with a new key, wholly or not at all.

        Raises:
            OSError: the file did not take it; no money has moved.
        """
        if self._write:
            self._write(msgspec.json.encode(line) + b"\n")
        self._index(line)

    @property
    def lines(self) -> Sequence[Line]:
        """All of them, oldest first."""
        return tuple(self._by_key.values())

    def by_key(self, key: str) -> Line | None:
        return self._by_key.get(key)

    def capture(self, charge_id: str) -> Line | None:
        return self._captures.get(charge_id)

    def captures(self, reference: str) -> Sequence[Line]:
        return [line for line in self._by_reference.get(reference, ()) if line.kind == "capture"]

    def refunded_minor(self, capture: Line) -> int:
        """How much of a capture has been given back so far."""
        return sum(
            line.amount_minor
            for line in self._by_reference[capture.reference]
            if line.kind == "refund" and line.charge_id == capture.id
        )

    def _index(self, line: Line) -> None:
        self._by_key[line.key] = line
        self._by_reference[line.reference] = (*self._by_reference.get(line.reference, ()), line)
        if line.kind == "capture":
            self._captures[line.id] = line


@contextmanager
def open_ledger(path: Path, *, fsync: bool = False) -> Iterator[Ledger]:
    """The ledger kept in `path`, for this process alone.

    Raises:
        LedgerError: another process has it open, or a line in it is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        try:
            # The lock goes with the process, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerError(f"{path} is in use by another process: stop it first") from error
        if fsync:
            _sync_directory(path.parent)
        yield Ledger(_load(path, file), write=partial(_write, file, fsync))


def _load(path: Path, file: FileIO) -> list[Line]:
    lines: list[Line] = []
    end = 0
    with path.open("rb") as stored:
        for number, raw in enumerate(stored, 1):
            if not raw.endswith(b"\n"):
                file.truncate(end)  # The writer died within it, before anyone was told of it.
                break
            try:
                lines.append(msgspec.json.decode(raw, type=Line))
            except ValueError as error:
                raise LedgerError(
                    f"{path}, line {number} is not a ledger line ({error}): mend it or move the file away"
                ) from error
            end += len(raw)
    return lines


def _write(file: FileIO, fsync: bool, line: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301  # One way out.
        if fsync:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def _sync_directory(path: Path) -> None:
    """A new file is only as durable as its name in the folder."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
