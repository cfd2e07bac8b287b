"""What one shard owes to the outside: each call waits as a value, and is performed by one of a few tasks."""

from collections import deque
from collections.abc import Callable

import trio

from actors.actor import Call, CallAnswered, Charge
from runtime.gateway import Gateway, unknown
from runtime.gateway_slots import OutOfReachError, Owed
from runtime.letters import order_of
from runtime.tracing import Tracer

IN_A_ROW_MAX = (
    20  # A provider within the process may answer without waiting: this is a millisecond.
)


class Calls:
    """The calls of one incarnation. Their tasks run in its nursery; `tell` hears the answers."""

    def __init__(
        self,
        nursery: trio.Nursery,
        gateway: Gateway,
        tracer: Tracer,
        tell: Callable[[CallAnswered], None],
    ) -> None:
        self._nursery, self._gateway, self._tracer, self._tell = nursery, gateway, tracer, tell
        self._owed: dict[str, Owed] = {}
        self._begun: deque[Owed] = deque()  # They have a place, and soon a task.
        self._is_one_free = False
        self._is_watching = False

    def __len__(self) -> int:
        return len(self._owed)

    def issue(self, key: str, call: Call, traceparent: str = "", *, again: bool = False) -> None:
        """Have a call performed, unless it is being so. `again`: it may have been sent before, nobody knows when."""
        earlier = self._owed.get(key)
        if earlier is not None and earlier.call == call:
            return
        if not self._is_watching:
            self._is_watching = True
            self._nursery.start_soon(self._watch)
        # A recovered charge is no repetition: it has waited for longest, and is as good as any.
        repeats = isinstance(call, Charge) and call.again
        owed = self._owed[key] = Owed(self, key, call, traceparent, again, repeats)
        self._gateway.slots.stand(owed)

    def end(self, answered: CallAnswered) -> None:
        """A call is over when its answer has been heard, not when it has come: until then it is not issued again."""
        owed = self._owed.get(answered.key)
        if owed is not None and owed.call == answered.call:
            del self._owed[answered.key]

    def close(self) -> None:
        """Let go of every place and of those in line: nobody is left to perform them."""
        self._begun.clear()
        self._gateway.slots.dismiss(self)

    # --- what the slots say ---

    def begin(self, owed: Owed) -> None:
        """There is a place for it."""
        self._begun.append(owed)
        if self._is_one_free:
            self._is_one_free = False
        else:
            self._nursery.start_soon(self._work)

    def give_up(self, owed: Owed, why: OutOfReachError) -> None:
        """There was none for too long."""
        self._tell(unknown(owed, why))

    # --- the tasks ---

    async def _watch(self) -> None:
        """Watch over those that wait, and let go of all once this is cancelled: so are those who would perform them."""
        try:
            await self._gateway.slots.watch()
        finally:
            self.close()

    async def _work(self) -> None:
        """Perform a call, and go on with one that the place it leaves is for: starting a task costs more than that."""
        performed = 0
        while self._begun:
            owed = self._begun.popleft()
            self._tell(await self._perform(owed))
            self._is_one_free = True
            self._gateway.slots.leave(owed)
            self._is_one_free = False
            performed += 1
            if performed % IN_A_ROW_MAX == 0:
                await trio.lowlevel.checkpoint()

    async def _perform(self, owed: Owed) -> CallAnswered:
        name = f"payment {type(owed.call).__name__}"
        span = self._tracer.call(name, owed.traceparent)
        answered = await self._gateway.perform(owed)
        span.note({"order.id": order_of(answered), "payment.outcome": answered.outcome})
        span.end()
        return answered
