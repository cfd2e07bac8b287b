"""Who may ask the payment provider next, and whether there is a point in asking it at all.

Three things keep a few bad calls from holding up the good ones:

- A request whose reply is late gives its place to another one, while it waits on.
- First requests go before repetitions of unclear ones, except that every fourth place is for a repetition.
- A provider that has been clear about nothing for a while is asked once a second, until it is clear again.
"""

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


@dataclass(slots=True, eq=False)
class _Waiter:
    turn: Turn
    is_let_in: bool = False
    looks: trio.Event = field(default_factory=trio.Event)
    """Set when it is let in, or should look how long it has to wait now."""


class Slots:
    """`size` requests that are not late are under way at a time.

    While the provider is out of reach, a request waits for it to come back for `patience_s` at most.
    """

    def __init__(self, size: int, *, call_timeout_s: float, patience_s: float) -> None:
        self._size, self._patience_s = size, patience_s
        self._late_after_s = min(LATE_AFTER_S, call_timeout_s / 4)
        self._begun_s: dict[_Waiter, float] = {}  # Those under way, the oldest first.
        self._lines: dict[bool, deque[_Waiter]] = {False: deque(), True: deque()}
        self._firsts_in_a_row = 0
        self._unclear_in_a_row = 0
        self._seen = ""
        self._probed_s = -math.inf

    @asynccontextmanager
    async def slot(self, turn: Turn) -> AsyncIterator[None]:
        """Wait for a place, and keep it.

        Raises:
            OutOfReachError: patience was over first.
        """
        me, line = _Waiter(turn), self._lines[turn.repeats]
        line.append(me)
        try:
            self._let_in()
            while not me.is_let_in:
                await self._wait(me, is_first=line[0] is me)
        finally:
            if not me.is_let_in:
                line.remove(me)
                self._wake()
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

    def _let_in(self) -> None:
        """All at once for whom there is a place now: calls that begin together are answered together."""
        let_in = True
        while let_in:
            let_in = False
            for repeats, line in self._lines.items():
                if line and self._ready_s(repeats) <= trio.current_time():
                    self._begin(line.popleft())
                    let_in = True
                    if line:
                        line[0].looks.set()

    def _begin(self, waiter: _Waiter) -> None:
        self._firsts_in_a_row = 0 if waiter.turn.repeats else self._firsts_in_a_row + 1
        self._begun_s[waiter] = trio.current_time()
        if self._is_out_of_reach:
            self._probed_s = trio.current_time()
        waiter.is_let_in = True
        waiter.looks.set()

    async def _wait(self, me: _Waiter, *, is_first: bool) -> None:
        """Wait for a change; the first in line for a moment, too."""
        until_s = math.inf
        if is_first:
            until_s = self._ready_s(me.turn.repeats)
            if self._is_out_of_reach:
                gives_up_s = me.turn.since_s + self._patience_s
                if gives_up_s <= trio.current_time():
                    raise OutOfReachError(self._seen)
                until_s = min(until_s, gives_up_s)
        me.looks = trio.Event()
        with trio.move_on_at(until_s):
            await me.looks.wait()
        if not me.is_let_in:
            self._let_in()

    def _ready_s(self, repeats: bool) -> float:
        """When the next of this kind may begin, unless something changes."""
        is_turn_of_repetition = self._firsts_in_a_row >= FIRSTS_IN_A_ROW
        if self._lines[not repeats] and repeats is not is_turn_of_repetition:
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
        """Something has changed: let in whom it concerns, and let the first ones look how long to wait now."""
        self._let_in()
        for line in self._lines.values():
            if line:
                line[0].looks.set()
