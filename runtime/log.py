"""The log contract: what the shards, the readers and the command line need of a broker, and no more.

Two keepers implement it: `runtime.jetstream` on a real nats-server and `runtime.memory`, its twin for tests and
simulation. `tests/runtime/test_log_contract.py` holds both to the same behaviour.

The log is one stream, totally ordered by `seq` (from 1). A *subject* names one shard's journal, one shard's dead
letters, or one order that came in by the open way. Beside it stand two stores that can be rebuilt from it: snapshots
(by name) and views (by order id).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


class LogError(Exception):
    """Base of everything a log can refuse."""


class FencedError(LogError):
    """Another owner has appended to this subject since; nothing of this append was stored."""


class BrokerLostError(LogError):
    """The connection went away or the answer did not come: it may or may not have happened. Recover to find out."""


class RefusedError(LogError):
    """The broker answered no (full, too large, not allowed); nothing was stored. Trying the same again will not help."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored message. `time_ms` is the broker's clock at the append, in milliseconds since 1970."""

    seq: int
    subject: str
    payload: bytes
    time_ms: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """An ordered, gap-free read of some subjects. It follows the log for as long as it is open."""

    backlog: int
    """How many entries matched when the reader was opened: a finite read takes that many and stops."""

    async def take(self) -> Sequence[Entry]:
        """Wait for at least one entry, then return all that have arrived, oldest first. Never skips, never repeats.

        Room is bounded: the reader asks the broker for more only as entries are taken.

        Raises:
            BrokerLostError: the connection is gone; open a new reader after the last entry taken.
        """
        ...


class Log(Protocol):
    """Append with a fence, read in order, keep snapshots and views."""

    async def append(
        self, subject: str, payload: bytes, *, expect: int | None = None, headers: Mapping[str, str] | None = None
    ) -> int:
        """Store one message and return its `seq` once it is durable.

        `expect` is the fence: the `seq` that must be the subject's newest (0: the subject must be empty).

        Raises:
            FencedError: `expect` was not the newest.
            RefusedError: the broker said no.
            BrokerLostError: no answer; it may be stored now, later, or never.
        """
        ...

    def read(self, after: int, subjects: Sequence[str]) -> AbstractAsyncContextManager[Reader]:
        """Read entries with `seq > after` on any of `subjects` (NATS wildcards `*` and `>` allowed), and follow."""
        ...

    async def last(self, subject: str) -> Entry | None:
        """The newest entry on exactly this subject."""
        ...

    async def last_seq(self) -> int:
        """The newest `seq` of the whole stream; 0 when it is empty."""
        ...

    async def put_snapshot(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, replacing what was there. Old or new is found after a crash, never a mixture."""
        ...

    async def get_snapshot(self, name: str) -> bytes | None: ...

    async def put_views(self, views: Mapping[str, bytes]) -> None:
        """Store the newest public view of each order id. One round trip for many. Not atomic across orders."""
        ...

    async def get_view(self, order_id: str) -> bytes | None: ...
