"""The log in memory: the twin of `runtime.jetstream`, with a broker's failures on demand.

`MemoryStore` is the broker's disk and `MemoryLog` one client's connection to it. Two logs on one
store are two processes on one broker; dropping a log and opening another on the same store is a
crash and a restart.
"""

import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import trio

from runtime.log import (
    BrokerLostError,
    Entry,
    FencedError,
    RefusedError,
    check_filters,
    check_headers,
    check_key,
    check_subject,
)

ANSWER_TIMEOUT_S = 5.0  # The real keeper's patience: a hook that sleeps longer is a silent broker.
CLAIMS_MAX = 4
TAKE_MAX = 512  # Entries handed out at once: readers have bounded room here as there.
EPOCH_MS = 1_700_000_000_000  # The default clock starts here, so that simulations repeat exactly.

T = TypeVar("T")
Hook = Callable[[str, bytes], Awaitable[None]]


class MemoryStore:
    """What the broker has stored. It outlives every `MemoryLog` that uses it."""

    def __init__(
        self, *, now_ms: Callable[[], int] | None = None, payload_bytes_max: int = 8 * 1024 * 1024
    ) -> None:
        self.entries: list[Entry] = []
        self.snapshots: dict[str, bytes] = {}
        self.views: dict[str, bytes] = {}
        self.views_claim = 0
        self.views_claimer: object = None
        """None where nobody has claimed them, or RETENTION has taken the claim."""
        self.payload_bytes_max = payload_bytes_max
        self.first_seq = 1
        self._newest: dict[str, Entry] = {}
        self._now_ms = now_ms or _trio_clock_ms()
        self._grown = trio.Event()

    def append(
        self, subject: str, payload: bytes, expect: int | None, headers: Mapping[str, str]
    ) -> int:
        newest = self.last(subject)
        newest_seq = newest.seq if newest else 0
        if expect is not None and expect != newest_seq:
            raise FencedError(f"{subject}: {expect} should be the newest, but {newest_seq} is")
        seq = len(self.entries) + 1
        entry = Entry(seq, subject, bytes(payload), self._now_ms(), dict(headers))
        self.entries.append(entry)
        self._newest[subject] = entry
        grown, self._grown = self._grown, trio.Event()
        grown.set()
        return seq

    def last(self, subject: str) -> Entry | None:
        newest = self._newest.get(subject)
        return newest if newest is not None and newest.seq >= self.first_seq else None

    def expire(self, through_seq: int) -> None:
        """Let RETENTION have taken everything up to `through_seq`; `entries` remembers it for those who check."""
        self.first_seq = through_seq + 1

    async def wait_grown(self, beyond: int) -> None:
        """Wait until there are more than `beyond` entries."""
        while len(self.entries) <= beyond:
            await self._grown.wait()


class MemoryLog:
    """One client of a `MemoryStore`; keeps the contract of `runtime.log.Log`.

    For crash tests `before_append` and `after_append` run on either side of the moment a message
    becomes durable. A hook may sleep, cancel, or raise `BrokerLostError`: before it means that the
    request was lost, after it that the answer was.
    """

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.before_append: Hook | None = None
        self.after_append: Hook | None = None
        self._connection = _Connection()
        self._reconnected = trio.Event()
        self._claim: int | None = None

    @property
    def payload_bytes_max(self) -> int:
        return self.store.payload_bytes_max

    @property
    def connected(self) -> bool:
        return not self._connection.lost.is_set()

    def disconnect(self) -> None:
        """Lose the broker: whatever waits fails now, and everything fails until `reconnect`."""
        self._connection.lose()

    def reconnect(self) -> None:
        """Reach the broker again. Readers opened before stay broken, as they do in earnest."""
        self._connection = _Connection()
        reconnected, self._reconnected = self._reconnected, trio.Event()
        reconnected.set()

    async def wait_connected(self) -> None:
        while not self.connected:
            await self._reconnected.wait()

    async def wait_disconnected(self) -> None:
        await self._connection.lost.wait()

    async def carry(self, what: str, name: str, work: Callable[[], T]) -> T:  # noqa: ARG002  # For who overrides it.
        """Take one request to the broker and bring its answer: the one way there, for subclasses to make dangerous.

        `what` is asked of the broker about `name`, and carried out by `work`.
        """
        return work()

    def lose_answers(self, count: int = 1) -> None:
        """Store the next `count` appends and then lose their answers."""
        left = itertools.count(count - 1, -1)

        async def lose(subject: str, _payload: bytes) -> None:
            if next(left) <= 0:
                self.after_append = None
            raise BrokerLostError(f"the answer to an append on {subject} was lost")

        self.after_append = lose

    async def append(
        self,
        subject: str,
        payload: bytes,
        *,
        expect: int | None = None,
        headers: Mapping[str, str] | None = None,
        cancellable: bool = False,
    ) -> int:
        check_subject(subject)
        check_headers(headers or {})
        self._check_size(subject, payload)

        async def append() -> int:
            if self.before_append is not None:
                await self.before_append(subject, payload)
            work = partial(self.store.append, subject, payload, expect, headers or {})
            seq = await self.carry("append", subject, work)
            if self.after_append is not None:
                await self.after_append(subject, payload)
            return seq

        return await self._connection.ask(append, is_shielded=not cancellable)

    @asynccontextmanager
    async def read(self, after: int, subjects: Sequence[str]) -> AsyncIterator["MemoryReader"]:
        check_filters(subjects)
        connection = self._connection
        yield await self._ask(
            "read", subjects[0], lambda: MemoryReader(self.store, connection, after, subjects)
        )

    async def last(self, subject: str) -> Entry | None:
        check_subject(subject)
        return await self._ask("last", subject, lambda: self.store.last(subject))

    async def first_seq(self) -> int:
        return await self._connection.ask_now(lambda: self.store.first_seq)

    async def last_seq(self) -> int:
        return await self._ask("last_seq", "", lambda: len(self.store.entries))

    async def put_snapshot(self, name: str, data: bytes) -> None:
        check_key(name)
        await self._ask(
            "put_snapshot", name, lambda: self.store.snapshots.update({name: bytes(data)})
        )

    async def get_snapshot(self, name: str) -> bytes | None:
        check_key(name)
        return await self._ask("get_snapshot", name, lambda: self.store.snapshots.get(name))

    async def claim_views(self) -> None:
        for _ in range(CLAIMS_MAX):
            newest, claimer = await self._ask("read_claim", "", self._read_claim)
            if self._claim is not None and claimer not in (None, self):
                raise FencedError("the views are claimed by another since")
            with suppress(FencedError):
                claim = partial(self._claim_views, newest)
                self._claim = await self._ask("claim_views", "", claim)
                return
        raise BrokerLostError("a claim of the views was overtaken again and again")

    def _read_claim(self) -> tuple[int, object]:
        return self.store.views_claim, self.store.views_claimer

    def _claim_views(self, newest: int) -> int:
        if newest != self.store.views_claim:
            raise FencedError("the views are claimed by another since")
        self.store.views_claimer = self
        self.store.views_claim += 1
        return self.store.views_claim

    async def put_views(self, views: Mapping[str, bytes]) -> None:
        for order_id, view in views.items():
            check_key(order_id)
            self._check_size(order_id, view)
        # By the claim of this moment: one that arrives after a later claim of our own comes too late, too.
        put = partial(self._put_views, dict(views), self._claim)
        await self._ask("put_views", ",".join(views), put)

    def _put_views(self, views: Mapping[str, bytes], claim: int | None) -> None:
        if claim not in (None, self.store.views_claim):
            raise FencedError("the views are claimed by another since")
        self.store.views.update(views)

    async def get_view(self, order_id: str) -> bytes | None:
        check_key(order_id)
        return await self._ask("get_view", order_id, lambda: self.store.views.get(order_id))

    async def _ask(self, what: str, name: str, work: Callable[[], T]) -> T:
        return await self._connection.ask(lambda: self.carry(what, name, work))

    def _check_size(self, name: str, payload: bytes) -> None:
        if len(payload) > self.payload_bytes_max:
            raise RefusedError(
                f"{name}: {len(payload)} bytes, and the broker takes {self.payload_bytes_max}"
            )


class MemoryReader:
    """A position in a `MemoryStore`."""

    def __init__(
        self, store: MemoryStore, connection: "_Connection", after: int, subjects: Sequence[str]
    ) -> None:
        self._store = store
        self._connection = connection
        self._after = max(after, store.first_seq - 1)
        self._filters = [subject.split(".") for subject in subjects]
        self.backlog = sum(map(self._wants, store.entries[self._after :]))

    async def take(self) -> Sequence[Entry]:
        entries = await self._connection.ask_now(self._arrived)
        while not entries:
            grown = partial(self._store.wait_grown, self._after)
            await self._connection.ask(grown, timeout_s=math.inf)
            entries = self._arrived()
        return entries

    def _arrived(self) -> list[Entry]:
        waiting = itertools.islice(self._store.entries, self._after, None)
        entries = list(itertools.islice(filter(self._wants, waiting), TAKE_MAX))
        self._after = entries[-1].seq if len(entries) == TAKE_MAX else len(self._store.entries)
        return entries

    def _wants(self, entry: Entry) -> bool:
        tokens = entry.subject.split(".")
        return any(_matches(tokens, wanted) for wanted in self._filters)


class _Connection:
    """Everything that waits on the broker, so that losing it fails all of it at once."""

    def __init__(self) -> None:
        self.lost = trio.Event()
        self._waits: dict[trio.CancelScope, None] = {}  # A set has an order of its own each time.

    def lose(self) -> None:
        self.lost.set()
        for scope in self._waits:
            scope.cancel()

    async def ask_now(self, work: Callable[[], T]) -> T:
        async def answer() -> T:
            return work()

        return await self.ask(answer)

    async def ask(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        is_shielded: bool = False,
    ) -> T:
        """Do what a request does: leave (a checkpoint), be carried out, be answered in time."""
        if self.lost.is_set():
            raise BrokerLostError("not connected to the broker")
        with trio.move_on_after(timeout_s, shield=is_shielded) as scope:
            self._waits[scope] = None
            try:
                await trio.lowlevel.checkpoint()
                return await work()
            finally:
                del self._waits[scope]
        raise BrokerLostError(
            "the connection was lost" if self.lost.is_set() else "no answer in time"
        )


def _matches(tokens: Sequence[str], wanted: Sequence[str]) -> bool:
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(tokens) == len(wanted) and all(
        want in ("*", have) for want, have in zip(wanted, tokens, strict=True)
    )


def _trio_clock_ms() -> Callable[[], int]:
    """Follow trio's clock, virtual or not, from `EPOCH_MS` at the first use."""
    started_s: float | None = None

    def now_ms() -> int:
        nonlocal started_s
        if started_s is None:
            started_s = trio.current_time()
        return EPOCH_MS + round((trio.current_time() - started_s) * 1000)

    return now_ms
