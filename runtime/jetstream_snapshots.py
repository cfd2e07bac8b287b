"""Snapshots in a JetStream object store, laid out as every NATS tool expects it.

The chunks go on a subject of their own, then one message about them replaces its predecessor:
that message is the moment of change, and a crash on either side of it leaves one whole snapshot.
"""

import base64
import hashlib
import uuid
from datetime import UTC, datetime
from typing import Final

import msgspec
import trio

from runtime.jetstream_api import Api
from runtime.jetstream_streams import SNAPSHOTS
from runtime.log import DamagedError, check_key

CHUNK_BYTES: Final = 512 << 10  # One fsync each; larger ones would keep appends waiting.
CHUNK_OVERHEAD_BYTES: Final = 1 << 10
TRIES: Final = 5  # A snapshot may be replaced while it is read.
TRY_WAIT_S: Final = 0.1
_BUCKET: Final = SNAPSHOTS.removeprefix("OBJ_")


class _Options(msgspec.Struct, frozen=True):
    max_chunk_size: int


class _Info(msgspec.Struct, frozen=True):
    """What the object store keeps about an object; the names are ADR-20's."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str
    mtime: str
    options: _Options
    deleted: bool = False


async def put(api: Api, name: str, data: bytes) -> None:
    check_key(name)
    before = await _find(api, name)
    nuid = uuid.uuid4().hex
    step = min(CHUNK_BYTES, api.bridge.payload_bytes_max - CHUNK_OVERHEAD_BYTES)
    chunks = [data[start : start + step] for start in range(0, len(data), step)]
    for chunk in chunks:
        await api.publish(_chunks_subject(nuid), chunk)
    info = _Info(
        name=name,
        bucket=_BUCKET,
        nuid=nuid,
        size=len(data),
        chunks=len(chunks),
        digest=_digest(data),
        mtime=datetime.now(UTC).isoformat(),
        options=_Options(step),
    )
    await api.publish(_info_subject(name), msgspec.json.encode(info), {"Nats-Rollup": "sub"})
    if before is not None:
        await api.call(f"STREAM.PURGE.{SNAPSHOTS}", {"filter": _chunks_subject(before.nuid)})


async def get(api: Api, name: str) -> bytes | None:
    check_key(name)
    for _ in range(TRIES):
        info = await _find(api, name)
        if info is None:
            return None
        data = await _read_chunks(api, info)
        if data is not None and _digest(data) == info.digest:
            return data
        await trio.sleep(TRY_WAIT_S)
    raise DamagedError(
        f"snapshot {name} in object store {_BUCKET} is damaged: restore the broker from a backup,"
        f" or delete the snapshot and live without what only it knew"
    )


async def _find(api: Api, name: str) -> _Info | None:
    message = await api.newest(SNAPSHOTS, _info_subject(name))
    info = None if message is None else msgspec.json.decode(message.payload, type=_Info)
    return None if info is None or info.deleted else info


async def _read_chunks(api: Api, info: _Info) -> bytes | None:
    """One request each, and not by a consumer: it may be given to a replica that lags."""
    chunks: list[bytes] = []
    seq = 1
    while len(chunks) < info.chunks:
        chunk = await api.next(SNAPSHOTS, seq, _chunks_subject(info.nuid))
        if chunk is None:
            return None
        chunks.append(chunk.payload)
        seq = chunk.seq + 1
    return b"".join(chunks)


def _chunks_subject(nuid: str) -> str:
    return f"$O.{_BUCKET}.C.{nuid}"


def _info_subject(name: str) -> str:
    return f"$O.{_BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _digest(data: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()}"
