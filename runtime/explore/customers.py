"""The customers: they order, order again, cancel and look, ask until they are answered, and write that down."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import msgspec
import trio

from actors.actor import Outcome
from actors.order_state import TERMINAL
from messages.codec import encode
from runtime.audit.journal import Attempt, Op, Told
from runtime.desk import Desk, created_from
from runtime.desk_types import NewItem, NewOrder, Unavailable
from runtime.explore.schedule import SKUS, Damage, Order, Recount, Schedule, Way
from runtime.explore.wires import Errand
from runtime.explore.world import World
from runtime.memory import EPOCH_MS
from runtime.recall import INTAKE

PRICE_MINOR: Final = {"a": 255, "b": 1099, "c": 1, "d": 40000}
CURRENCIES: Final = ("GBP", "GBP", "EUR")
ASK_AGAIN_S: Final = 0.4
REFUSED_S: Final = 0.01  # How soon one hears that no process listens.
LOOKS_S: Final = (0.0, 0.03, 0.5, 2.5, 12.0)
INSTANT_MS: Final = 0.001
ASTRAY_SHARE: Final = 0.2

_CODES: Final = {
    Outcome.DONE: 202,
    Outcome.REUSED: 422,
    Outcome.INVALID: 422,
    Outcome.TOO_LATE: 409,
    Outcome.UNKNOWN: 404,
}


class _Seen(msgspec.Struct):
    status: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class _Said:
    """What a customer was told, as HTTP would have said it."""

    code: int
    status: str = ""
    version: int = 0


Asking = Callable[[Desk], Awaitable[_Said]]
Visit = Callable[..., Awaitable[object]]


class Customers:
    """All customers of one run, and their journal."""

    def __init__(self, world: World, schedule: Schedule) -> None:
        self._world, self._schedule = world, schedule
        self.journal: list[Attempt] = []
        self.published: dict[str, None] = {}
        """Orders on the open way that anybody could read."""
        self._opened_s = 0.0

    async def stock_up(self) -> None:
        """Open the shop."""
        for sku, on_hand in SKUS.items():
            await self._count(Recount(0, sku, on_hand))
        self._opened_s = trio.current_time()

    async def shop(self) -> None:
        """Until everybody has an answer to everything."""
        async with trio.open_nursery() as nursery:
            for worker, order in enumerate(self._schedule.orders, 1):
                for visit in self._visits(worker, order):
                    nursery.start_soon(self._at, *visit)
            for recount in self._schedule.recounts:
                nursery.start_soon(self._at, recount.at_ms, self._count, recount)

    def _visits(self, worker: int, order: Order) -> Iterator[tuple[Any, ...]]:
        """What the customer of an order does, and when."""
        visit = self._place if order.way is Way.ASK else self._publish
        for after_ms in (0, *order.again_ms):
            yield order.at_ms + after_ms, visit, worker, order
        if order.clash_ms is not None:
            yield order.at_ms + order.clash_ms, visit, worker, _another(order)
        if order.cancel_ms is not None:
            yield order.at_ms + order.cancel_ms, self._cancel, worker, order.id
        yield order.at_ms, self._look, worker, order.id

    async def retry(self, order_id: str) -> None:
        """What an operator does about an order that needs attention."""
        await self._insist(Attempt(Op.CANCEL, 0, Told.UNKNOWN), partial(_retry, order_id))

    @property
    def promised(self) -> Iterable[str]:
        """The orders that must come to an end: accepted, or published so that anybody could read them."""
        accepted = (
            one.order_id
            for one in self.journal
            if one.op is Op.PLACE and one.outcome is Told.ACCEPTED
        )
        return dict.fromkeys((*accepted, *self.published))

    # --- visits ---

    async def _place(self, worker: int, order: Order) -> None:
        wanted = new_order(order)
        attempt = Attempt(
            Op.PLACE,
            0,
            Told.UNKNOWN,
            key=order.id,
            order_id=order.id,
            currency=wanted.currency,
            total_minor=wanted.total_minor,
            items=[(item.sku, item.quantity, item.unit_price_minor) for item in wanted.items],
            token=order.token,
            worker=worker,
        )
        await self._insist(attempt, partial(_place, wanted))

    async def _cancel(self, worker: int, order_id: str) -> None:
        attempt = Attempt(Op.CANCEL, 0, Told.UNKNOWN, order_id=order_id, worker=worker)
        await self._insist(attempt, partial(_cancel, order_id))

    async def _look(self, worker: int, order_id: str) -> None:
        attempt = Attempt(Op.READ, 0, Told.UNKNOWN, order_id=order_id, worker=worker)
        for pause_s in LOOKS_S:
            await trio.sleep(pause_s)
            said = await self._try(attempt, partial(_look, order_id))
            if said is not None and said.status in TERMINAL:
                return

    async def _count(self, recount: Recount) -> None:
        attempt = Attempt(Op.STOCK, 0, Told.UNKNOWN, sku=recount.sku, on_hand=recount.on_hand)
        await self._insist(attempt, partial(_count, recount))

    async def _publish(self, _worker: int, order: Order) -> None:
        """By the open way, where nobody answers."""
        world, is_astray = self._world, order.damage is Damage.ASTRAY
        if order.damage in (Damage.NONE, Damage.FALSE_TOTAL):
            self.published[order.id] = None
        subject = f"{INTAKE}.{order.id}{'x' if is_astray else ''}"
        store = partial(world.store.append, subject, _payload(order), None, {})
        world.broker.submit(Errand("an order on the open way", store, world.nemesis))
        await trio.lowlevel.checkpoint()

    # --- asking ---

    async def _at(self, at_ms: int, visit: Visit, *args: Any) -> None:
        await trio.sleep_until(self._opened_s + at_ms / 1000)
        await visit(*args)

    async def _insist(self, attempt: Attempt, ask: Asking) -> _Said:
        """The same again until there is a definite answer."""
        while True:
            said = await self._try(attempt, ask)
            if said is not None:
                return said
            await trio.sleep(ASK_AGAIN_S * (0.5 + self._world.dice.random()))

    async def _try(self, attempt: Attempt, ask: Asking) -> _Said | None:
        """Once; None where it may or may not have happened."""
        desk = self._desk()
        if desk is None:
            await trio.sleep(REFUSED_S)
            return None
        sent_s, said = trio.current_time(), None
        with suppress(Unavailable):
            said = await ask(desk)
        self.journal.append(_written(attempt, said, sent_s))
        return said

    def _desk(self) -> Desk | None:
        """Of the newest process; sometimes of another that still runs, superseded or not."""
        world, alive = self._world, self._world.alive
        if alive and world.dice.random() < ASTRAY_SHARE:
            return world.dice.choice(alive).desk
        return None if world.newest.ended.is_set() else world.newest.desk


def new_order(order: Order) -> NewOrder:
    """What the desk is asked to place."""
    return NewOrder(
        order_id=order.id,
        customer_id=f"customer of {order.id}",
        currency=CURRENCIES[len(order.lines) % len(CURRENCIES)],
        items=tuple(NewItem(sku, number, PRICE_MINOR[sku]) for sku, number in order.lines),
        payment_token=order.token,
    )


def _another(order: Order) -> Order:
    """Another body under the same id."""
    lines = tuple((sku, number + 1) for sku, number in order.lines)
    return replace(order, lines=lines, token="tok_ok")  # noqa: S106  # It scripts the provider.


def _payload(order: Order) -> bytes:
    created = created_from(new_order(order))
    match order.damage:
        case Damage.GARBAGE:
            return b"\xff\x00 this is no order"
        case Damage.TRUNCATED:
            return encode(created)[:-3]
        case Damage.FALSE_TOTAL:
            created.total_minor += 1
    return encode(created)


async def _place(order: NewOrder, desk: Desk) -> _Said:
    placed = await desk.place(order, traceparent=None)
    return _Said(_CODES[placed.outcome], placed.status)


async def _cancel(order_id: str, desk: Desk) -> _Said:
    answer = await desk.cancel(order_id, traceparent=None)
    return _Said(_CODES[answer.outcome], answer.status)


async def _retry(order_id: str, desk: Desk) -> _Said:
    answer = await desk.retry(order_id, traceparent=None)
    return _Said(_CODES[answer.outcome], answer.status)


async def _count(recount: Recount, desk: Desk) -> _Said:
    answers = await desk.set_stock({recount.sku: recount.on_hand})
    return _Said(_CODES[answers[recount.sku].outcome])


async def _look(order_id: str, desk: Desk) -> _Said:
    view = await desk.view(order_id)
    if view is None:
        return _Said(404)
    seen = msgspec.json.decode(view, type=_Seen)
    return _Said(200, seen.status, seen.version)


def _written(attempt: Attempt, said: _Said | None, sent_s: float) -> Attempt:
    """A line of the journal."""
    at_ms = int(sent_s * 1000)
    # In virtual time much happens at one instant: an answer then comes after every question.
    took_ms = trio.current_time() * 1000 - at_ms + INSTANT_MS
    times: dict[str, Any] = {"at_ms": EPOCH_MS + at_ms, "took_ms": round(took_ms, 3)}
    if said is None:
        return msgspec.structs.replace(attempt, code=503, **times)
    told = Told.ACCEPTED if said.code < 300 else Told.REFUSED
    return msgspec.structs.replace(
        attempt,
        outcome=told,
        code=said.code,
        status=said.status,
        version=said.version,
        **times,
    )
