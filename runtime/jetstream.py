"""The log on a real nats-server: one stream, a key-value bucket of views, an object store.

jetstream.py            the contract, over
jetstream_streams.py    what the streams are, and the check that they still are so
jetstream_reader.py     reading in order
jetstream_snapshots.py  the object store
jetstream_api.py        requests, answers, errors
bridge.py               the connection
"""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from runtime import jetstream_snapshots
from runtime.bridge import Bridge
from runtime.jetstream_api import FENCE, FENCE_SUBJECT, Api, own_headers
from runtime.jetstream_reader import JetStreamReader
from runtime.jetstream_streams import (
    EVENTS,
    VIEWS,
    Layout,
    StreamLostError,
    StreamMismatchError,
    Streams,
)
from runtime.log import (
    HEADER_BYTES_MAX,
    BrokerLostError,
    Entry,
    FencedError,
    check_filters,
    check_headers,
    check_key,
    check_subject,
)

__all__ = ["JetStreamLog", "Layout", "StreamLostError", "StreamMismatchError"]

BATCH_MAX: Final = 1_000  # The server's own limit.
# An fsync a put, against one fsync and a fixed cost a batch. Measured with `sync_interval: always`
# and 600 bytes a view, in ms for all of them: 1 view 0.4 as put and 2.4 as batch, 10 views 2.0 to
# 4 and 2.5, 100 views 16 and 3.8, 500 views 84 and 8.5.
PUTS_MAX: Final = 5
HEADER_ROOM_BYTES: Final = HEADER_BYTES_MAX + 128  # The broker counts headers in; the fence is one.

CLAIM: Final = "$KV.orders.owner/views"  # No order id has a slash.
CLAIMS_MAX: Final = 4  # At a read and a write each, hardly anybody is ahead of all of them.

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class JetStreamLog:
    """Keeps the contract of `runtime.log.Log`. Call `prepare` once before the first append."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._api = Api(bridge)
        self._streams = Streams(self._api)
        self._me = (
            uuid.uuid4().hex.encode()
        )  # Tells a renewal whose answer was lost from another's claim.
        self._claim_seq: int | None = None

    async def prepare(self, layout: Layout, *, accept_loss: bool = False) -> None:
        """Create the streams at the very first start, verify them at every other; see `Streams.prepare`.

        Raises:
            StreamMismatchError: they are not what `layout` says, or were lost; nothing was changed.
            BrokerConfigError: this broker has no JetStream for us.
            BrokerLostError: not connected, or JetStream is not up yet.

        """
        await self._streams.prepare(layout, accept_loss=accept_loss)

    async def verify(self) -> None:
        """Look whether the streams are still those that were prepared. Raises like `prepare`."""
        await self._streams.verify()

    @property
    def payload_bytes_max(self) -> int:
        return self._bridge.payload_bytes_max - HEADER_ROOM_BYTES

    async def append(
        self,
        subject: str,
        payload: bytes,
        *,
        expect: int | None = None,
        headers: Mapping[str, str] | None = None,
        cancellable: bool = False,
    ) -> int:
        if headers:
            check_headers(headers)
        if expect is not None:
            headers = {**(headers or {}), FENCE: str(expect)}
        return await self._api.publish(subject, payload, headers, is_shielded=not cancellable)

    @asynccontextmanager
    async def read(self, after: int, subjects: Sequence[str]) -> AsyncIterator[JetStreamReader]:
        check_filters(subjects)
        reader = JetStreamReader(self._api, EVENTS, after, subjects)
        try:
            await reader.open()
            yield reader
        finally:
            reader.close()

    async def last(self, subject: str) -> Entry | None:
        check_subject(subject)
        message = await self._api.newest(EVENTS, subject)
        if message is None:
            return None
        stored = datetime.fromisoformat(message.time)
        return Entry(
            seq=message.seq,
            subject=subject,
            payload=message.payload,
            time_ms=(stored - _EPOCH) // timedelta(milliseconds=1),
            headers=own_headers(message.header),
        )

    async def first_seq(self) -> int:
        return max(1, await self._state("first_seq"))

    async def last_seq(self) -> int:
        return await self._state("last_seq")

    async def _state(self, what: str) -> int:
        info = await self._api.call(f"STREAM.INFO.{EVENTS}")
        seq: int = info["state"][what]
        return seq

    async def put_snapshot(self, name: str, data: bytes) -> None:
        await jetstream_snapshots.put(self._api, name, data)

    async def get_snapshot(self, name: str) -> bytes | None:
        return await jetstream_snapshots.get(self._api, name)

    async def claim_views(self) -> None:
        for _ in range(CLAIMS_MAX):
            newest = await self._api.newest(VIEWS, CLAIM)
            renews = self._claim_seq is not None
            if renews and newest is not None and newest.payload != self._me:
                raise FencedError("the views of orders have been claimed by another client since")
            # Each is fenced, the first as well: it may arrive when we are dead and a successor has claimed. Refused, it
            # was overtaken by somebody's claim, or by an earlier one of ours that came late. Look whose it is.
            fence = {FENCE: str(newest.seq) if newest is not None else "0"}
            with suppress(FencedError):
                self._claim_seq = await self._api.publish(CLAIM, self._me, fence)
                return
        raise BrokerLostError(f"our claim of the views was overtaken {CLAIMS_MAX} times in a row")

    async def put_views(self, views: Mapping[str, bytes]) -> None:
        for order_id in views:
            check_key(order_id)
        puts = [(f"$KV.orders.{order_id}", view) for order_id, view in views.items()]
        if len(puts) > PUTS_MAX:
            for start in range(0, len(puts), BATCH_MAX):
                await self._put_batch(puts[start : start + BATCH_MAX])
            return
        for subject, view in puts:
            await self._api.publish(subject, view, self._fence())

    async def get_view(self, order_id: str) -> bytes | None:
        check_key(order_id)
        message = await self._api.newest(VIEWS, f"$KV.orders.{order_id}")
        if message is None or b"KV-Operation" in message.header:  # Deleted, by some other tool.
            return None
        return message.payload

    async def _put_batch(self, puts: Sequence[tuple[str, bytes]]) -> None:
        """One atomic batch: only its last message is answered, and the first one fenced, for all of them."""
        batch_id = uuid.uuid4().hex
        headers = [
            {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(n)}
            for n in range(1, len(puts) + 1)
        ]
        headers[0] |= self._fence()
        self._bridge.publish_many(
            (subject, view, header)
            for (subject, view), header in zip(puts[:-1], headers[:-1], strict=True)
        )
        subject, view = puts[-1]
        await self._api.publish(subject, view, {**headers[-1], "Nats-Batch-Commit": "1"})

    def _fence(self) -> Mapping[str, str]:
        """What lets a write of views fail as soon as another client has claimed them."""
        if self._claim_seq is None:
            return {}
        return {FENCE: str(self._claim_seq), FENCE_SUBJECT: CLAIM}
