"""Standard output for machines: JSON, written beside the event loop, since whoever reads it may be slow."""

import sys
from collections.abc import Iterable

import msgspec
import trio

_encode = msgspec.json.Encoder().encode


async def write_json(value: object) -> None:
    """One value, indented."""
    await _write(msgspec.json.format(_encode(value), indent=2) + b"\n")


async def write_lines(values: Iterable[object]) -> None:
    """Each value on a line of its own."""
    if lines := b"".join(_encode(value) + b"\n" for value in values):
        await _write(lines)


async def _write(text: bytes) -> None:
    await trio.to_thread.run_sync(_write_all, text, abandon_on_cancel=True)


def _write_all(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
