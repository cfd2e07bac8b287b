"""The log contract: what shards, readers and the command line need of a broker, and no more.

Two keepers implement it: `runtime.jetstream` on a real nats-server and `runtime.memory`, its twin
for tests and simulation. `tests/runtime/test_log_contract.py` holds both to the same behaviour.

The log is one stream, totally ordered by `seq` (from 1). A *subject* names one shard's journal,
one shard's dead letters, or one order that came in by the open way. Beside it stand two stores
that can be rebuilt from it: snapshots (by name) and views (by order id).
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

APPEND_S = 6.0  # An append ends within this time, one way or the other.


class LogError(Exception):
    """Base of everything a log can refuse."""


class FencedError(LogError):
    """Another owner has appended to this subject since; nothing of this append was stored."""


class SupersededError(LogError):
    """Another instance has taken over. The newest owner wins, so this instance must stop."""


class BrokerLostError(LogError):
    """The connection went away or no answer came: it may or may not have happened. Recover."""


class RefusedError(LogError):
    """The broker said no (full, too large, not allowed): nothing was stored, nor will be if retried."""


class BrokerConfigError(LogError):
    """The broker is not what the configuration says (rights, streams): a person has to decide."""

    exit_code = 78  # EX_CONFIG of sysexits.h.


class DamagedError(LogError):
    """What is stored is not what was put there. Reading it again will not help; a backup may."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored message. `time_ms` is the broker's clock at the append, ms since 1970."""

    seq: int
    subject: str
    payload: bytes
    time_ms: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """An ordered, gap-free read of some subjects. It follows the log for as long as it is open."""

    backlog: int
    """How many entries matched at the opening: a finite read takes that many and stops."""

    async def take(self) -> Sequence[Entry]:
        """Wait for at least one entry, then return all that have arrived, oldest first.

        Never skips, never repeats. Room is bounded: the reader asks the broker for more only as
        entries are taken.

        Raises:
            BrokerLostError: the connection is gone; open a new reader after the last entry taken.

        """
        ...


class Log(Protocol):
    """Append with a fence, read in order, keep snapshots and views."""

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload this broker takes; a larger one is refused."""
        ...

    async def append(
        self,
        subject: str,
        payload: bytes,
        *,
        expect: int | None = None,
        headers: Mapping[str, str] | None = None,
        cancellable: bool = False,
    ) -> int:
        """Store one message and return its `seq` once it is durable.

        Nobody cancels it unless it is `cancellable`, and it ends within APPEND_S: what has been sent is stored or not,
        whoever still waits.

        `expect` is the fence: the `seq` that must be the subject's newest (0: the subject must be
        empty).

        Raises:
            FencedError: `expect` was not the newest.
            RefusedError: the broker said no.
            BrokerLostError: no answer; it may be stored now, later, or never.

        """
        ...

    def read(self, after: int, subjects: Sequence[str]) -> AbstractAsyncContextManager[Reader]:
        """Read entries with `seq > after` on any of `subjects`, and follow.

        `*` stands for one token and a last `>` for the rest; the subjects may not overlap.
        """
        ...

    async def last(self, subject: str) -> Entry | None:
        """The newest entry on exactly this subject."""
        ...

    async def first_seq(self) -> int:
        """The oldest `seq` that is still kept: 1 at first, one beyond the newest when all expired."""
        ...

    async def last_seq(self) -> int:
        """The newest `seq` that the whole stream has ever had; 0 when nothing was ever appended."""
        ...

    async def put_snapshot(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`. After a crash the old or the new is found, never a mixture."""
        ...

    async def get_snapshot(self, name: str) -> bytes | None:
        """What was kept under `name`, verified by its checksum.

        Raises:
            DamagedError: something is there, and it is not what was put.

        """
        ...

    async def claim_views(self) -> None:
        """Become the one writer of views: whoever has claimed them before is refused from now on.

        A claim lasts as long as RETENTION, and claiming again renews it. One that arrives when another has been made
        meanwhile is refused, so that a dead client takes nothing from its successor.

        Raises:
            FencedError: another client has claimed them since we did.

        """
        ...

    async def put_views(self, views: Mapping[str, bytes]) -> None:
        """Store the newest public view of each order id: one round trip, not atomic across orders.

        Raises:
            FencedError: another client has claimed the views since we did; nothing more is stored.

        """
        ...

    async def get_view(self, order_id: str) -> bytes | None: ...


SUBJECT_CHARS_MAX = 512  # A line beyond the server's limit closes the connection for all its users.
HEADER_BYTES_MAX = 4096
_TOKEN = re.compile(r"[!-)+,\-/-=?-~]+")  # Visible ASCII, less `*`, `.` and `>`.
_KEY = re.compile(r"[A-Za-z0-9_=/-]{1,255}")  # What every NATS tool takes as a key, less the dot.
_HEADER_NAME = re.compile(r"(?!nats-)[A-Za-z0-9_-]{1,64}", re.IGNORECASE)
_HEADER_VALUE = re.compile(r"[ -~]*")


def check_subject(subject: str) -> None:
    """Refuse (RefusedError) what is not one plain subject, before it can reach a broker."""
    _check_tokens(subject, subject.split("."))


def check_filters(subjects: Sequence[str]) -> None:
    """Refuse (RefusedError) what a reader cannot ask for: wildcards are fine, overlaps are not."""
    if not subjects:
        raise RefusedError("a reader needs at least one subject")
    for subject in subjects:
        tokens = subject.removesuffix(".>").split(".")
        _check_tokens(subject, [part for part in tokens if part != "*"])
    for one, other in itertools.combinations(subjects, 2):
        if _overlap(one.split("."), other.split(".")):
            raise RefusedError(f"{one} and {other} overlap: read every subject once")


def check_key(key: str) -> None:
    """Refuse (RefusedError) a snapshot name or order id that a NATS tool could not ask for."""
    if not _KEY.fullmatch(key):
        raise RefusedError(f"{key[:80]!r} is no key: use 1 to 255 of A-Z a-z 0-9 _ = / -")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse (RefusedError) headers that would arrive altered, or that order the broker about."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise RefusedError(
                f"header name {name[:80]!r}: use up to 64 letters, digits, _ and -;"
                " Nats- is the broker's own"
            )
        if not _HEADER_VALUE.fullmatch(value):
            raise RefusedError(f"header {name}: only printable ASCII arrives as it was sent")
    if sum(len(name) + len(value) + 4 for name, value in headers.items()) > HEADER_BYTES_MAX:
        raise RefusedError(f"more than {HEADER_BYTES_MAX} bytes of headers: use the payload")


def _check_tokens(subject: str, tokens: Sequence[str]) -> None:
    if len(subject) > SUBJECT_CHARS_MAX or not all(map(_TOKEN.fullmatch, tokens)):
        raise RefusedError(
            f"{subject[:80]!r} is no subject: use up to {SUBJECT_CHARS_MAX} characters, tokens of"
            " visible ASCII without * and >, one dot between two"
        )


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    for mine, theirs in zip(one, other, strict=False):
        if ">" in (mine, theirs):
            return True
        if "*" not in (mine, theirs) and mine != theirs:
            return False
    return len(one) == len(other)
