"""The points inside the shard host and the tail, which they have only where faults are on; and who passes, told."""

from collections.abc import Iterable, Sequence

from actors.actor import CallAnswered, Due, Heard
from messages.record import Envelope, Letter, RawRecord, RecordError
from runtime.faults import points
from runtime.faults.fault import Occasion
from runtime.faults.injector import Effect, Faults
from runtime.faults.points import Point
from runtime.letters import order_of
from runtime.log import Entry
from runtime.mailbox import Ask, Delivery, Item, Wake
from runtime.past import Past
from runtime.recall import INTAKE, JOURNALS, LETTERS, Address


class ShardHooks:
    """What a shard calls at its points."""

    def __init__(self, faults: Faults, address: Address) -> None:
        self._faults, self._address = faults, address

    async def reach(self, point: Point, about: Iterable[tuple[str, str]] = ()) -> None:
        if self._faults.wants(point):
            await self._faults.reach(Occasion(point, *self._address, tuple(about)))

    async def before_react(self, items: Sequence[Item], past: Past) -> None:
        """Pass once for each thing that is about to be heard; what is raised counts against it."""
        if not self._faults.wants(points.BEFORE_REACT):
            return
        for item in items:
            if past.is_spent(item):
                continue  # It will be set aside unheard.
            try:
                await self.reach(points.BEFORE_REACT, (_about(item),))
            except Exception as error:
                past.note(item, error)
                raise

    async def around_append(
        self, point: Point, facts: Iterable[Envelope], keys: Iterable[str]
    ) -> None:
        """Pass with what a record says and whom it is about."""
        said = [(type(sent.fact).__name__, sent.correlation_id) for sent in facts]
        await self.reach(point, (*said, *(("", key.removeprefix("order:")) for key in keys)))

    async def before_letter(self, letter: Letter) -> None:
        await self.reach(points.BEFORE_LETTER, ((letter.type, letter.correlation_id),))


async def is_doubled(faults: Faults, entry: Entry) -> bool:
    """Pass the tail's point with one entry; true when it is to be delivered twice."""
    if not faults.wants(points.BEFORE_DELIVERY):
        return False
    is_strange = entry.subject.startswith(f"{INTAKE}.")
    order_id = entry.subject.removeprefix(f"{INTAKE}.")
    about = (("OrderCreated", order_id),) if is_strange else said_in(entry.payload)
    occasion = Occasion(points.BEFORE_DELIVERY, about=about)
    return await faults.reach(occasion) is Effect.DUPLICATE


def owner_of(subject: str) -> Address | None:
    """The shard whose journal or dead letters a subject names; None for everything else."""
    for prefix in (JOURNALS, LETTERS):
        if subject.startswith(f"{prefix}."):
            actor, _, shard = subject.removeprefix(f"{prefix}.").partition(".")
            return Address(actor, int(shard)) if shard.isdecimal() else None
    return None


def said_in(payload: bytes) -> tuple[tuple[str, str], ...]:
    """The facts of a record, and the orders that they are about; none where it cannot be read."""
    try:
        facts = RawRecord(payload).facts
    except RecordError:
        return ()
    return tuple(
        (type(sent.fact).__name__, sent.correlation_id)
        for sent in facts
        if isinstance(sent, Envelope)
    )


def _about(item: Item) -> tuple[str, str]:
    match item:
        case Delivery(content=Letter() as letter):
            return letter.type, letter.correlation_id
        case Delivery(content=Envelope() as sent):
            return type(sent.fact).__name__, sent.correlation_id
        case Ask(fact=fact):
            return _named(fact)
        case CallAnswered() | Due():
            return _named(item)
        case Wake(key=key) | Delivery(content=Wake(key=key)):
            return Wake.__name__, key.removeprefix("order:")
    raise AssertionError(item)


def _named(heard: Heard) -> tuple[str, str]:
    return type(heard).__name__, order_of(heard)
