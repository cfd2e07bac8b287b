"""The reader on JetStream: a pull consumer without acks, kept in order by its own counting.

The consumer lives in the broker's memory and is worth nothing: when it is gone, silent or out of
step, the reader replaces it by one that starts after the last entry received.
"""

import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog
import trio

from runtime.jetstream_api import Api, own_headers
from runtime.link import Message
from runtime.log import BrokerLostError, Entry

ROOM_ENTRIES: Final = 1_000
ROOM_BYTES: Final = 4 << 20  # Or one message of the largest size, where that is more.
OVERHEAD_BYTES: Final = 64 << 10  # Subjects and headers count too.
HEARTBEAT_S: Final = 2.0
SILENCE_S: Final = 5.0  # Two heartbeats missed, and some: the consumer is gone.
PULL_EXPIRES_S: Final = 60.0
INACTIVE_S: Final = 30.0  # After this the broker deletes a consumer that we could not.
REPLACE_WAIT_S: Final = 0.1  # Between two consumers, lest a lasting fault becomes a hot loop.

_NS: Final = 1_000_000_000
_logger = structlog.get_logger("runtime.jetstream")


class JetStreamReader:
    """A position in one stream; keeps the contract of `runtime.log.Reader`."""

    backlog: int

    def __init__(self, api: Api, stream: str, after: int, subjects: Sequence[str]) -> None:
        self._api = api
        self._stream = stream
        self._subjects = subjects
        self._received = after
        self._arrived: list[Entry] = []
        self._lost = ""
        self._waiter: trio.lowlevel.Task | None = None
        self._silent_from_s = 0.0
        self._consumer = _Consumer(api, stream, self)

    async def open(self) -> None:
        self.backlog = await self._consumer.create(self._received, self._subjects)
        self._consumer.pull()

    def close(self) -> None:
        self._consumer.delete()

    async def take(self) -> Sequence[Entry]:
        if self._arrived:
            await trio.lowlevel.checkpoint()
        while not self._arrived:
            if self._lost:
                raise BrokerLostError(self._lost)
            if self._consumer.trouble:
                await self._replace_consumer()
            self._consumer.pull()
            await self._wait_heard()
        entries, self._arrived = self._arrived, []
        if not self._consumer.trouble and not self._lost:
            self._consumer.pull()  # Now there is room, and what comes travels while we work.
        return entries

    def heard(self, entry: Entry | None) -> None:
        if entry is not None:
            self._arrived.append(entry)
            self._received = entry.seq
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)
            self._waiter = None

    def lost(self, why: str) -> None:
        self._lost = why
        self.heard(None)

    async def _wait_heard(self) -> None:
        """Wait for a word of the consumer, be it only a heartbeat."""

        def give_up(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiter = trio.lowlevel.current_task()
        self._silent_from_s = trio.current_time() + SILENCE_S
        await trio.lowlevel.wait_task_rescheduled(give_up)

    def look(self, now_s: float) -> None:
        """Called from time to time: see whether the consumer has been silent for too long."""
        if self._waiter is not None and now_s > self._silent_from_s:
            self._consumer.trouble = f"not a word for {SILENCE_S:g} s"
            self.heard(None)

    async def _replace_consumer(self) -> None:
        _logger.warning(
            "reader_replaced",
            stream=self._stream,
            after=self._received,
            trouble=self._consumer.trouble,
        )
        self._consumer.delete()
        await trio.sleep(REPLACE_WAIT_S)
        self._consumer = _Consumer(self._api, self._stream, self)
        await self._consumer.create(self._received, self._subjects)


class _Consumer:
    """One consumer on the broker, its inbox, and at most one pull under way."""

    def __init__(self, api: Api, stream: str, reader: JetStreamReader) -> None:
        self.trouble = ""
        self._api = api
        self._bridge = api.bridge
        self._name = f"{stream}.reader_{uuid.uuid4().hex}"
        self._reader = reader
        self._inbox = self._bridge.new_inbox()
        self._subscription = self._bridge.subscribe(
            f"{self._inbox}.*", self._on_message, reader.lost
        )
        self._subscription.watch(reader.look)
        self._delivered = 0
        self._pulls = 0
        self._left_of_pull = 0

    async def create(self, after: int, subjects: Sequence[str]) -> int:
        """Create it on the broker; return how many entries wait for it."""
        stream, name = self._name.split(".")
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subjects": list(subjects),
            "inactive_threshold": round(INACTIVE_S * _NS),
            "num_replicas": 1,
            "mem_storage": True,
        }
        request = {"stream_name": stream, "config": config, "action": "create"}
        answer = await self._api.call(f"CONSUMER.CREATE.{self._name}", request)
        backlog: int = answer["num_pending"]
        return backlog

    def pull(self) -> None:
        """Ask for as much as there is room for, unless that has been asked for already."""
        if self._left_of_pull:
            return
        self._left_of_pull = ROOM_ENTRIES
        self._pulls += 1
        room_bytes = max(ROOM_BYTES, self._bridge.payload_bytes_max + OVERHEAD_BYTES)
        self._bridge.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._name}",
            msgspec.json.encode(
                {
                    "batch": ROOM_ENTRIES,
                    "max_bytes": room_bytes,
                    "expires": round(PULL_EXPIRES_S * _NS),
                    "idle_heartbeat": round(HEARTBEAT_S * _NS),
                }
            ),
            reply=f"{self._inbox}.{self._pulls}",
        )

    def delete(self) -> None:
        self._subscription.close()
        with suppress(BrokerLostError):  # Then the broker forgets it by itself.
            self._bridge.publish(
                f"$JS.API.CONSUMER.DELETE.{self._name}", reply=self._bridge.new_inbox()
            )

    def _on_message(self, message: Message) -> None:
        if not message.reply.startswith(b"$JS.ACK."):  # Else a delivery, whatever its header says.
            self._on_status(message.status, message)
            self._reader.heard(None)
            return
        # $JS.ACK[.<domain>.<account>].<stream>.<consumer>.<deliveries>.<seq>.<count>.<ns>.<pending>
        tokens = message.reply.split(b".")
        seq, delivered, time_ns = tokens[5:8] if len(tokens) == _V1_TOKENS else tokens[7:10]
        self._delivered += 1
        self._left_of_pull -= 1
        if int(delivered) != self._delivered:
            self.trouble = f"delivery {int(delivered)} came, {self._delivered} was due"
        if self.trouble:
            self._reader.heard(None)  # What comes after a gap is for the next consumer to bring.
            return
        self._reader.heard(
            Entry(
                int(seq),
                message.subject.decode("utf-8", "replace"),
                message.payload,
                int(time_ns) // 1_000_000,
                own_headers(message.header),
            )
        )

    def _on_status(self, status: int, message: Message) -> None:
        if status == _HEARTBEAT:
            last = message.headers.get("Nats-Last-Consumer")
            if last is not None and int(last) != self._delivered:
                self.trouble = f"{last} deliveries were made, {self._delivered} came"
        elif status in _PULL_EXPIRED or _PULL_SERVED.search(message.header):
            if message.subject.endswith(b".%d" % self._pulls):  # Else the next is under way.
                self._left_of_pull = 0
        else:
            self.trouble = message.header[9:].strip().decode("ascii", "replace")


_V1_TOKENS: Final = 9
_HEARTBEAT: Final = 100
_PULL_EXPIRED: Final = (404, 408)
_PULL_SERVED: Final = re.compile(b"Batch Completed|MaxBytes")
