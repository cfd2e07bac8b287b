"""Who may ask the payment provider next, and whether there is a point in asking it at all.

Three things keep a few bad calls from holding up the good ones:

- A request whose reply is late gives its place to another one, while it waits on.
- First requests go before repetitions of unclear ones, except that every fourth place is for a repetition.
- A provider that has been clear about nothing for a while is asked once a second, until it is clear again.
"""

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import islice

import trio

LATE_MAX = 50  # Above five hanging calls a second at ten seconds each; they are file descriptors.
LATE_AFTER_S = 1.0  # Most providers answer sooner.
FIRSTS_IN_A_ROW = 3  # While a repetition waits.
UNCLEAR_MAX = 10  # In a row. One card in five may be unclear, and this happens once in ten million.
PROBE_EVERY_S = 1.0


class OutOfReachError(Exception):
    """The provider has been clear about nothing for too long; the request was not sent."""


@dataclass(slots=True)
class Turn:
    """How one call stands in line: since when, and whether it has been tried before."""

    repeats: bool = False
    since_s: float = field(default_factory=trio.current_time)


class Slots:
    """`size` requests that are not late are under way at a time.

    While the provider is out of reach, a request waits for it to come back for `patience_s` at most.
    """

    def __init__(self, size: int, *, call_timeout_s: float, patience_s: float) -> None:
        self._size, self._patience_s = size, patience_s
        self._late_after_s = min(LATE_AFTER_S, call_timeout_s / 4)
        self._begun_s: dict[object, float] = {}  # Those under way, the oldest first.
        self._doors = {repeats: trio.StrictFIFOLock() for repeats in (False, True)}
        self._waiting = {False: 0, True: 0}
        self._firsts_in_a_row = 0
        self._unclear_in_a_row = 0
        self._seen = ""
        self._probed_s = -math.inf
        self._changed = trio.Event()

    @asynccontextmanager
    async def slot(self, turn: Turn) -> AsyncIterator[None]:
        """Wait for a place, and keep it.

        Raises:
            OutOfReachError: patience was over first.
        """
        me, repeats = object(), turn.repeats
        with self._waits(repeats):
            async with self._doors[repeats]:
                await self._wait_ready(turn)
                self._begin(me, repeats)
        try:
            yield
        finally:
            del self._begun_s[me]
            self._wake()

    def note(self, unclear: str) -> None:
        """Say what came of a request: why it was unclear, or nothing where it was clear."""
        if unclear:
            self._unclear_in_a_row += 1
            self._seen = unclear
        elif self._unclear_in_a_row:
            self._unclear_in_a_row = 0
            self._wake()

    @contextmanager
    def _waits(self, repeats: bool) -> Iterator[None]:
        self._waiting[repeats] += 1
        try:
            yield
        finally:
            self._waiting[repeats] -= 1
            self._wake()

    def _begin(self, me: object, repeats: bool) -> None:
        self._firsts_in_a_row = 0 if repeats else self._firsts_in_a_row + 1
        self._begun_s[me] = trio.current_time()
        if self._is_out_of_reach:
            self._probed_s = trio.current_time()

    async def _wait_ready(self, turn: Turn) -> None:
        """Wait at the door, alone of this kind."""
        while (until_s := self._ready_s(turn.repeats)) > trio.current_time():
            if self._is_out_of_reach:
                gives_up_s = turn.since_s + self._patience_s
                if gives_up_s <= trio.current_time():
                    raise OutOfReachError(self._seen)
                until_s = min(until_s, gives_up_s)
            changed = self._changed
            with trio.move_on_at(until_s):
                await changed.wait()

    def _ready_s(self, repeats: bool) -> float:
        """When the next of this kind may begin, unless something changes."""
        is_turn_of_repetition = self._firsts_in_a_row >= FIRSTS_IN_A_ROW
        if self._waiting[not repeats] and repeats is not is_turn_of_repetition:
            return math.inf
        probe_s = self._probed_s + PROBE_EVERY_S if self._is_out_of_reach else -math.inf
        return max(probe_s, self._free_s())

    def _free_s(self) -> float:
        """When there is a place: now, or when enough of those under way are late."""
        late_needed = len(self._begun_s) - self._size + 1
        if late_needed <= 0:
            return -math.inf
        if late_needed > LATE_MAX:
            return math.inf
        begun_s = next(islice(self._begun_s.values(), late_needed - 1, None))
        return begun_s + self._late_after_s

    @property
    def _is_out_of_reach(self) -> bool:
        return self._unclear_in_a_row >= UNCLEAR_MAX

    def _wake(self) -> None:
        """Let those at the doors look again."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()
