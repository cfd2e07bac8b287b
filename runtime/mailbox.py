"""A shard's mailbox in memory: what the log delivered, what was asked directly, and what the shard told itself.

Everything durable is in the log; losing a mailbox loses nothing, since the next owner reads on from its cursor.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import trio
from betterproto import Message

from actors.actor import Answer, CallAnswered, Due
from messages.record import Cursor, Envelope, Letter

ROOM = 2_000  # Facts waiting; the tail pauses above it. Several groups' worth, so that a shard never runs dry.
ASKS_MAX = 5_000  # Asks waiting; above it the edge sheds load instead of letting clients time out.


class OverloadedError(Exception):
    """More asks are waiting than can be answered in time; nothing was taken in."""


class AskFailedError(Exception):
    """The shard stopped before it answered: the ask may or may not have been carried out. Ask the same again."""


class Replayed(Envelope, frozen=True):
    """A fact that had been set aside, and is heard again: perhaps for the second time."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Look at a key again: arm the deadline and issue the call that its state asks for, as after a restart.

    For when one of them was set aside. What is armed or under way stays so.
    """

    key: str


Content = Envelope | Letter | Wake


class Delivery(msgspec.Struct, frozen=True):
    """One fact from the log, or a letter where it could not be read, or the wish to look at a key again.

    `index` is its place in its record, `ordinal` its place among those for this shard, `is_last` whether none follows.
    """

    seq: int
    index: int
    ordinal: int
    is_last: bool
    content: Content

    @property
    def after(self) -> Cursor:
        """The cursor of a shard that has taken this in."""
        return Cursor(self.seq) if self.is_last else Cursor(self.seq - 1, self.ordinal + 1)


@dataclass(slots=True)
class Ask:
    """A fact from somebody who waits for the answer. Resolved once, after the step is durable."""

    fact: Message
    traceparent: str = ""
    answer: Answer | None = None
    settled: trio.Event = field(default_factory=trio.Event)

    def resolve(self, answer: Answer) -> None:
        self.answer = answer
        self.settled.set()

    async def wait_answered(self) -> Answer:
        """Wait for the answer.

        Raises:
            AskFailedError: none will come; whether it was carried out is unknown.
        """
        await self.settled.wait()
        if self.answer is None:
            raise AskFailedError("the shard stopped before it answered")
        return self.answer


Item = Delivery | Ask | CallAnswered | Due | Wake


class Mailbox:
    """Two queues and one event. Asks and the shard's own news go first, as somebody waits, but take half at most."""

    def __init__(self) -> None:
        self._deliveries: deque[Delivery] = deque()
        self._urgent: deque[Ask | CallAnswered | Due | Wake] = deque()
        self._filled = trio.Event()
        self._drained = trio.Event()
        self._asks = 0
        self.read_seq = 0
        """Everything in the log up to here has been delivered: when the mailbox is empty, so has the shard read."""
        self.wake_seq: float = math.inf
        """Once more than this has been read, the shard is woken, if by nothing: its cursor alone is worth a record."""

    def __len__(self) -> int:
        return len(self._deliveries) + len(self._urgent)

    @property
    def has_room(self) -> bool:
        return len(self._deliveries) < ROOM

    async def wait_room(self) -> None:
        while not self.has_room:
            self._drained = trio.Event()
            await self._drained.wait()

    def deliver(self, delivery: Delivery) -> None:
        self._deliveries.append(delivery)
        self._filled.set()

    def ask(self, ask: Ask) -> None:
        """Queue an ask.

        Raises:
            OverloadedError: too many are waiting.
        """
        if self._asks >= ASKS_MAX:
            raise OverloadedError(f"{self._asks} requests are waiting for this shard")
        self._asks += 1
        self.tell(ask)

    def tell(self, item: Ask | CallAnswered | Due | Wake) -> None:
        self._urgent.append(item)
        self._filled.set()

    def nudge(self) -> None:
        """Wake the shard if it has read far and heard nothing."""
        if self.read_seq > self.wake_seq:
            self._filled.set()

    def put_back(self, items: list[Item]) -> None:
        """Return what was taken and not heard, to be taken first next time."""
        for item in reversed(items):
            if isinstance(item, Delivery):
                self._deliveries.appendleft(item)
            else:
                self._urgent.appendleft(item)
                self._asks += isinstance(item, Ask)

    async def take(self, most: int) -> list[Item]:
        """Wait until there is something (or `wake_seq` is passed), then take up to `most` items.

        It can be cancelled even when it need not wait.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not (self._urgent or self._deliveries or self.read_seq > self.wake_seq):
            self._filled = trio.Event()
            await self._filled.wait()
        taken: list[Item] = []
        for_urgent = (
            most // 2 if self._deliveries else most
        )  # A flood of asks must not starve the log.
        while self._urgent and len(taken) < for_urgent:
            item = self._urgent.popleft()
            self._asks -= isinstance(item, Ask)
            taken.append(item)
        while self._deliveries and len(taken) < most:
            taken.append(self._deliveries.popleft())
        if self.has_room:
            self._drained.set()
        return taken

    def close(self) -> None:
        """Fail every ask that is still waiting."""
        fail_asks(self._urgent)
        self._urgent.clear()
        self._deliveries.clear()
        self._drained.set()


def fail_asks(items: Iterable[Item]) -> None:
    """Let whoever still waits for an answer know that none will come."""
    for item in items:
        if isinstance(item, Ask):
            item.settled.set()
