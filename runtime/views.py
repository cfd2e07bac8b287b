"""The public views of orders: written after the commit, many at a time, and read back by whoever asks.

A view that waits to be written is already readable here, so a client of this instance reads what it wrote. Only the
newest version of an order is rendered and stored: at once when the order is finished, else after a second.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from actors.actor import Actor, State
from runtime.log import BrokerLostError, FencedError, Log, SupersededError
from runtime.trace_context import trace_id_of
from runtime.vitals import Vitals

LINGER_S = 0.1  # Between two writes: each takes all that has gathered.
SETTLES_S = 1.0  # An order that is not finished by then is written as it is; most are, and are written once.
RENEW_S = 3600.0  # Of our claim to write; well below RETENTION, with which it ends.
BATCH_MAX = 1_000  # Of one round trip, and as many as JetStream takes in one batch.

_encode = msgspec.json.Encoder().encode

Watcher = Callable[[Any], None]
"""Told a state; it must neither wait nor raise."""


@dataclass(frozen=True, slots=True)
class _Version:
    view: Callable[[Any], Mapping[str, Any]]
    state: State
    traceparent: str
    due_s: float

    def render(self) -> bytes:
        view = self.view(self.state)
        return _encode({**view, "trace_id": trace_id_of(self.traceparent)})


class Views:
    """The write side and the read side of the view store."""

    def __init__(self, log: Log, *, renew_s: float = RENEW_S) -> None:
        self._log = log
        self._renew_s = renew_s
        self._waiting: dict[str, _Version] = {}
        self._writing: dict[str, _Version] = {}
        self._filled = trio.Event()
        self._written = trio.Event()
        self._is_running = False
        self._watchers: dict[str, list[Watcher]] = {}
        self._writes = 0
        self._hurried = 0  # How many wait for everything to be written.
        self._progress_s = 0.0

    @property
    def vitals(self) -> Vitals:
        """What it is busy with, for those who watch."""
        waiting = len(self._waiting) + len(self._writing)
        return Vitals(waiting, 0, not waiting, self._progress_s)

    def put(self, order_id: str, actor: Actor, state: State, traceparent: str) -> None:
        """Let the newest version of an order be seen, where its actor shows any."""
        if actor.view is None:
            return
        due_s = 0.0
        if state.remains is None:
            earlier = self._waiting.get(order_id)
            due_s = earlier.due_s if earlier else trio.current_time() + SETTLES_S
        if not self._waiting and not self._writing:
            self._progress_s = trio.current_time()  # Before that there was nothing to do.
        self._waiting[order_id] = _Version(actor.view, state, traceparent, due_s)
        self._filled.set()
        for tell in self._watchers.get(order_id, ()):
            tell(state)

    async def get(self, order_id: str) -> bytes | None:
        """The newest view of an order, as JSON."""
        version = self._waiting.get(order_id) or self._writing.get(order_id)
        if version is not None:
            return version.render()
        return await self._log.get_view(order_id)

    @contextmanager
    def watching(self, order_id: str, tell: Watcher) -> Iterator[None]:
        """Let `tell` see every further state of an order that this instance shows."""
        watchers = self._watchers.setdefault(order_id, [])
        watchers.append(tell)
        try:
            yield
        finally:
            watchers.remove(tell)
            if not watchers:
                del self._watchers[order_id]

    async def wait_written(self) -> None:
        """Wait until every version put so far is stored, or overtaken by one that is.

        Raises:
            BrokerLostError: nobody writes any more; what is being stopped need not wait for it.
        """
        self._hurried += 1
        enough = self._writes + 2  # The one under way may have left some out; the next takes all.
        try:
            while (self._waiting or self._writing) and self._writes < enough:
                if not self._is_running:
                    raise BrokerLostError("the views are not being written")
                await self._written.wait()
        finally:
            self._hurried -= 1

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write views as they come, until cancelled; a supervised child.

        Raises:
            SupersededError: another instance writes the views since.
            BrokerLostError, RefusedError: what was being written is kept, and written by the next incarnation.
        """
        self._is_running = True
        task_status.started()
        try:
            while True:
                # Views written after it are ours alone: what a frozen predecessor still had to write comes too late.
                await self._log.claim_views()
                # The claim after a refused write tells whether another has claimed since, or ours has expired.
                with suppress(FencedError):
                    await self._write_until(trio.current_time() + self._renew_s)
        except FencedError as error:
            raise SupersededError(
                "another instance writes the views of orders since; this one stops. Run one instance on a stream"
            ) from error
        finally:
            self._is_running = False
            self._tell_written()

    async def _write_until(self, end_s: float) -> None:
        while trio.current_time() < end_s:
            with trio.move_on_at(end_s):
                await self._filled.wait()
            if self._filled.is_set():
                await trio.sleep(LINGER_S)
                await self._write_due()

    async def _write_due(self) -> None:
        """Write the versions whose time has come; all of them, when somebody waits for that."""
        now_s = math.inf if self._hurried else trio.current_time()
        waiting, self._waiting = self._waiting, {}
        for order_id, version in waiting.items():
            (self._writing if version.due_s <= now_s else self._waiting)[order_id] = version
        try:
            for batch in batched(list(self._writing), BATCH_MAX):
                await self._log.put_views({key: self._writing[key].render() for key in batch})
                for key in batch:
                    del self._writing[key]
        except BaseException:
            self._waiting = self._writing | self._waiting
            self._writing = {}
            raise
        finally:
            self._filled = trio.Event()
            if self._waiting:
                self._filled.set()
        self._writes += 1
        self._progress_s = trio.current_time()
        self._tell_written()

    def _tell_written(self) -> None:
        written, self._written = self._written, trio.Event()
        written.set()


def batched(keys: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """The keys in order, at most so many at a time."""
    return (keys[start : start + most] for start in range(0, len(keys), most))
