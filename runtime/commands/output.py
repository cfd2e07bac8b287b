"""Standard output for machines: JSON, written beside the event loop, since whoever reads it may be slow."""

import sys
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio
from betterproto import Message

from messages.codec import descriptor

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


def moment(at_ms: int) -> str:
    """A time of the log for people and machines."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it, under the names of its `.proto`; integers stay integers."""
    names = (field.name for field in descriptor(type(message).__name__).fields)
    return {name: _plain(getattr(message, name)) for name in names}


def _plain(value: Any) -> Any:
    match value:
        case list():
            return [_plain(item) for item in value]
        case Message():
            return plain(value)
        case bytes():
            return b64encode(value).decode()
        case _:
            return value
