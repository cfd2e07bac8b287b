"""Who may ask the payment provider next, and whether there is a point in asking it at all.

A call that waits for its first request is a value in a line; ten thousand may. One that has begun is a task.

Three things keep a few bad calls from holding up the good ones:

- A request whose reply is late gives its place to another one, while it waits on.
- First requests go before repetitions of unclear ones, except that every fourth place is for a repetition.
- A provider that has been clear about nothing for a while is asked once a second, until it is clear again.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import trio

from actors.actor import Call

if TYPE_CHECKING:
    from runtime.gateway_calls import Calls

LATE_MAX = 50  # Above five hanging calls a second at ten seconds each; they are file descriptors.
LATE_AFTER_S = 1.0  # Most providers answer sooner.
FIRSTS_IN_A_ROW = 3  # While a repetition waits.
UNCLEAR_MAX = 10  # In a row. One card in five may be unclear, and this happens once in ten million.
PROBE_EVERY_S = 1.0


class OutOfReachError(Exception):
    """The provider has been clear about nothing for too long; the request was not sent."""


@dataclass(slots=True, eq=False)
class Owed:
    """A call, from when it is owed until it is answered, and how it stands in line.

    `again`: it may have been sent before, nobody knows when. `repeats`: it has been, and the reply was unclear.
    """

    calls: "Calls"
    key: str
    call: Call
    traceparent: str = ""
    again: bool = False
    repeats: bool = False
    since_s: float = field(default_factory=trio.current_time)
    looks: trio.Event | None = None
    """Where its task waits, once it has one: set when it is let in, or given up."""


class Slots:
    """`size` requests that are not late are under way at a time.

    While the provider is out of reach, a call waits for it to come back for `patience_s` at most.
    """

    def __init__(self, size: int, *, call_timeout_s: float, patience_s: float) -> None:
        self._size, self._patience_s = size, patience_s
        self._late_after_s = min(LATE_AFTER_S, call_timeout_s / 4)
        self._begun_s: dict[Owed, float] = {}  # Those that have a place, the oldest first.
        self._lines: dict[bool, deque[Owed]] = {False: deque(), True: deque()}
        self._firsts_in_a_row = 0
        self._unclear_in_a_row = 0
        self._seen = ""
        self._probed_s = -math.inf
        self._look_s = math.inf  # When those who watch look next.
        self._sooner = trio.Event()

    def stand(self, owed: Owed) -> None:
        """Put a call in line; it begins at once where there is a place, and keeps it until it leaves."""
        line = self._lines[owed.repeats]
        line.append(owed)
        if line[0] is owed:  # Behind others, it changes nothing.
            self._advance()

    async def wait_place(self, owed: Owed) -> None:
        """Stand in line once more, as the task that a call is by now.

        Raises:
            OutOfReachError: patience was over first.
        """
        owed.looks = trio.Event()
        self.stand(owed)
        await owed.looks.wait()
        if owed not in self._begun_s:
            raise OutOfReachError(self._seen)

    def leave(self, owed: Owed) -> None:
        """Give up a call's place, if it has one."""
        if self._begun_s.pop(owed, None) is not None:
            self._advance()

    def dismiss(self, calls: "Calls") -> None:
        """Forget a whole shard's."""
        for repeats, line in self._lines.items():
            self._lines[repeats] = deque(owed for owed in line if owed.calls is not calls)
        for owed in [owed for owed in self._begun_s if owed.calls is calls]:
            del self._begun_s[owed]
        self._advance()

    def note(self, unclear: str) -> None:
        """Say what came of a request: why it was unclear, or nothing where it was clear."""
        if unclear:
            self._unclear_in_a_row += 1
            self._seen = unclear
        elif self._unclear_in_a_row:
            self._unclear_in_a_row = 0
            self._advance()

    async def watch(self) -> None:
        """Let in and give up what only time decides on. Every shard with calls does this for all, until cancelled."""
        while True:
            with trio.move_on_at(self._look_s):
                await self._sooner.wait()
            if self._look_s <= trio.current_time():
                self._look_s = math.inf
            self._advance()

    def _advance(self) -> None:
        """All at once for whom there is a place now: calls that begin together are answered together."""
        if not self._lines[False] and not self._lines[True]:
            return
        now_s = look_s = trio.current_time()
        while look_s <= now_s:
            look_s = min(self._move_on(repeats, now_s) for repeats in self._lines)
        if look_s < self._look_s:
            self._look_s = look_s
            self._sooner.set()
            self._sooner = trio.Event()

    def _move_on(self, repeats: bool, now_s: float) -> float:
        """Let in or give up the first in a line; returns when there is something to do for the first again."""
        line = self._lines[repeats]
        if not line:
            return math.inf
        if (ready_s := self._ready_s(repeats)) <= now_s:
            self._begin(line.popleft(), now_s)
            return now_s
        if (given_up_s := self._given_up_s(line[0])) <= now_s:
            self._give_up(line.popleft())
            return now_s
        return min(ready_s, given_up_s)

    def _begin(self, owed: Owed, now_s: float) -> None:
        self._firsts_in_a_row = 0 if owed.repeats else self._firsts_in_a_row + 1
        self._begun_s[owed] = now_s
        if self._is_out_of_reach:
            self._probed_s = now_s
        if owed.looks is None:
            owed.calls.begin(owed)
        else:
            owed.looks.set()

    def _give_up(self, owed: Owed) -> None:
        if owed.looks is None:
            owed.calls.give_up(owed, OutOfReachError(self._seen))
        else:
            owed.looks.set()

    def _given_up_s(self, owed: Owed) -> float:
        return owed.since_s + self._patience_s if self._is_out_of_reach else math.inf

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
