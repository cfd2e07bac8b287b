"""A shard's alarm clock: the deadlines of its live states, on a heap, told to it when they have passed."""

import heapq
from collections.abc import Callable

import trio

from actors.actor import Due
from runtime.clock import LogClock

STALE_MIN = 1_000  # Below so many outdated entries a clean-up is not worth its time.
NAP_MAX_S = 60.0  # The log's clock may be corrected forwards meanwhile.


class Alarms:
    """One alarm a key; the newest `set` counts."""

    def __init__(self, clock: LogClock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, str]] = []
        self._armed: dict[str, int] = {}
        self._earlier = trio.Event()

    def __len__(self) -> int:
        return len(self._armed)

    def set(self, key: str, due_ms: int | None) -> None:
        """Wake this key at a time, or never."""
        if self._armed.get(key) == due_ms:
            return
        if due_ms is None:
            self._armed.pop(key, None)
        else:
            self._armed[key] = due_ms
            heapq.heappush(self._heap, (due_ms, key))
            if self._heap[0] == (due_ms, key):
                self._earlier.set()
        if len(self._heap) > 2 * len(self._armed) + STALE_MIN:
            self._heap = [(due, key) for key, due in self._armed.items()]
            heapq.heapify(self._heap)

    async def run(self, ring: Callable[[Due], None]) -> None:
        """Ring for every alarm that passes, until cancelled."""
        while True:
            self._earlier = trio.Event()
            for key in self._pop_due():
                ring(Due(key))
            nap_until = trio.current_time() + NAP_MAX_S
            if self._heap:
                nap_until = min(nap_until, self._clock.when(self._heap[0][0]))
            with trio.move_on_at(nap_until):
                await self._earlier.wait()

    def _pop_due(self) -> list[str]:
        now_ms, due_keys = self._clock.now_ms(), []
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, key = heapq.heappop(self._heap)
            if self._armed.get(key) == due_ms:
                del self._armed[key]
                due_keys.append(key)
        return due_keys
