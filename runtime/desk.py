"""The front desk: what the HTTP edge may ask of the actors' side of this process.

Writing is an ask: the shard that owns the order decides, its record makes the decision durable, and then the asker is
told. Reading never troubles a shard: it uses the views, and the log. What can still change, or is not there, is only
believed while the shard is ours: another instance may know better, and it is the one to ask then.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import trio
from betterproto import Message
from opentelemetry.trace import SpanKind

from actors import ACTORS, Place, Terms
from actors.actor import Answer, Outcome
from actors.inventory import Stock
from actors.order_state import TERMINAL, OrderState
from messages.generated.orders.v1 import (
    CancelAsked,
    OrderCreated,
    OrderItem,
    RetryAsked,
    StockCounted,
)
from messages.record import Envelope
from runtime.addressing import read_intake
from runtime.desk_types import Health, NewOrder, Placed, Unavailable, status_of
from runtime.log import BrokerLostError, Log
from runtime.mailbox import Ask, AskFailedError, OverloadedError
from runtime.ownership import Ownership
from runtime.recall import INTAKE, Address
from runtime.shards import Shards
from runtime.strangers import recall_own
from runtime.tracing import Tracer
from runtime.views import Views

ANSWER_S = 1.8  # The edge promises an answer within two seconds.
SHED_AFTER_S = (
    1.0  # A shard that lets somebody wait for this long is not given more: they would time out.
)


class Desk:
    """One for the process. `connected` says whether the broker is there, `unready` what is amiss in the tree."""

    def __init__(
        self,
        shards: Shards,
        views: Views,
        log: Log,
        tracer: Tracer,
        *,
        instance_id: str,
        connected: Callable[[], bool],
        describe_tree: Callable[[], Any],
        unready: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._shards, self._views, self._log, self._tracer = shards, views, log, tracer
        self._ownership = Ownership(log, instance_id)
        self._connected, self._describe_tree, self._unready = connected, describe_tree, unready
        self.is_open = False
        """True from the moment everything has started until the process begins to stop."""
        self.was_open = False
        self._closing: dict[object, Callable[[], None]] = {}  # Those who want to be told of it.
        self._asked_s: dict[
            Address, dict[object, float]
        ] = {}  # Who waits, and since when; the longest first.

    def open(self) -> None:
        self.is_open = self.was_open = True

    def close(self) -> None:
        self.is_open = False
        for tell in list(self._closing.values()):
            tell()

    # --- writing ---

    def admit(self, order_id: str) -> None:
        """Refuse an order whose shard keeps others waiting for long: it would only time out behind them.

        Raises:
            Unavailable: nothing was taken in.
        """
        waiting = self._asked_s.get(self._shards.address_of("order", order_id))
        if waiting and trio.current_time() - next(iter(waiting.values())) > SHED_AFTER_S:
            raise Unavailable("orders are coming in faster than they can be stored")

    async def place(self, order: NewOrder, *, traceparent: str | None = None) -> Placed:
        """Place an order; durable when it returns.

        Raises:
            Unavailable: it may or may not have been placed; ask again with the same id.
        """
        with self._tracer.start_order("place order", traceparent) as span:
            answer = await self._ask("order", order.order_id, created_from(order), span.traceparent)
            return Placed(order.order_id, answer.outcome, answer.status, answer.detail)

    async def cancel(self, order_id: str, *, traceparent: str | None = None) -> Answer:
        """Ask for an order to be cancelled: DONE (or under way), TOO_LATE, UNKNOWN."""
        return await self._about(order_id, CancelAsked(order_id=order_id), traceparent)

    async def retry(self, order_id: str, *, traceparent: str | None = None) -> Answer:
        """Look again at the payment of an order that needs attention."""
        return await self._about(order_id, RetryAsked(order_id=order_id), traceparent)

    async def set_stock(self, levels: Mapping[str, int]) -> Mapping[str, Answer]:
        """Set what is on hand, item by item; each is durable when this returns."""
        asks: dict[str, Ask] = {}
        with trio.move_on_after(ANSWER_S * 5):
            for sku, on_hand in levels.items():
                fact = StockCounted(sku=sku, on_hand=on_hand)
                asks[sku] = await self._put("inventory", sku, fact, "")
            return {sku: await _answer_of(ask) for sku, ask in asks.items()}
        raise Unavailable("not all levels were set in time; set them again")

    async def _about(self, order_id: str, fact: Message, traceparent: str | None) -> Answer:
        name = f"ask {type(fact).__name__}"
        with self._tracer.start_order(name, traceparent, kind=SpanKind.SERVER) as span:
            answer = await self._ask("order", order_id, fact, span.traceparent)
        if answer.outcome is Outcome.UNKNOWN:  # Nothing was appended that would have shown it.
            await self._check_ours(order_id)
        return answer

    async def _ask(self, actor: str, key: str, fact: Message, traceparent: str) -> Answer:
        waiting = self._asked_s.setdefault(self._shards.address_of(actor, key), {})
        me = object()
        waiting[me] = trio.current_time()
        try:
            with trio.move_on_after(ANSWER_S):
                return await _answer_of(await self._put(actor, key, fact, traceparent))
        finally:
            del waiting[me]
        raise Unavailable("no answer in time; it may still happen: ask the same again")

    async def _put(self, actor: str, key: str, fact: Message, traceparent: str) -> Ask:
        if not self._connected():
            raise Unavailable("not connected to the broker")
        try:
            return await self._shards.ask(actor, key, fact, traceparent)
        except OverloadedError as error:
            raise Unavailable(str(error), retry_after_s=2) from error

    # --- reading ---

    async def view(self, order_id: str) -> bytes | None:
        """The newest public JSON of an order.

        An order that came in by the open way and that nobody has taken up yet is shown as pending.

        Raises:
            Unavailable: nobody here can tell now; perhaps another instance can.
        """
        found = await self._look(order_id)
        if found is None or status_of(found) not in TERMINAL:
            await self._check_ours(order_id)
        return found

    async def _look(self, order_id: str) -> bytes | None:
        """What this process would show. The last views that an earlier one owed are written as its shards recover."""
        if not self._connected():
            raise Unavailable("not connected to the broker")
        with trio.move_on_after(ANSWER_S) as patience:
            await self._shards.wait_recovered("order", order_id)
        if patience.cancelled_caught:
            raise Unavailable("still starting")
        try:
            found = await self._views.get(order_id)
            return found if found is not None else await read_waiting(self._log, order_id)
        except BrokerLostError as error:
            raise Unavailable("not connected to the broker") from error

    async def _check_ours(self, order_id: str) -> None:
        """Refuse to say what may be old: a process learns only with its next append that another has taken over."""
        try:
            is_ours = await self._ownership.is_ours(self._shards.address_of("order", order_id))
        except BrokerLostError as error:
            raise Unavailable("not connected to the broker") from error
        if not is_ours:
            raise Unavailable("another instance has taken this order over")

    @contextmanager
    def watching(self, order_id: str, tell: Callable[[], None]) -> Iterator[None]:
        """Let `tell` be called whenever the order may have changed, and when this closes."""
        me = object()
        self._closing[me] = tell
        try:
            with self._views.watching(order_id, lambda _: tell()):
                yield
        finally:
            del self._closing[me]

    async def wait_terminal(self, order_id: str, timeout_s: float) -> bytes | None:
        """The public JSON of an order once it is terminal, or the newest one when the time is up."""
        terminal = trio.Event()

        def tell(state: OrderState) -> None:
            if state.status in TERMINAL:
                terminal.set()

        with self._views.watching(order_id, tell):
            found = await self._look(order_id)
            if found is None or status_of(found) not in TERMINAL:
                with trio.move_on_after(timeout_s):
                    await terminal.wait()
                found = await self.view(order_id)
            return found

    async def stock(self) -> Mapping[str, Any]:
        """Every stock item's levels, from the log."""
        try:
            return await read_stock(self._log, self._shards.counts["inventory"])
        except BrokerLostError as error:
            raise Unavailable("not connected to the broker") from error

    # --- how we are ---

    def health(self) -> Health:
        connected = self._connected()
        reasons = () if connected else ("not connected to NATS",)
        if not self.was_open:
            reasons = (*reasons, "still starting")
        elif not self.is_open:
            reasons = (*reasons, "stopping")
        reasons = (*reasons, *self._unready())
        return Health(connected, not reasons, self.was_open, reasons)

    def tree(self) -> Any:
        return self._describe_tree()


def created_from(order: NewOrder) -> OrderCreated:
    """The fact that an order was placed."""
    return OrderCreated(
        order_id=order.order_id,
        customer_id=order.customer_id,
        items=[
            OrderItem(sku=item.sku, quantity=item.quantity, unit_price_minor=item.unit_price_minor)
            for item in order.items
        ],
        currency=order.currency,
        total_minor=order.total_minor,
        payment_token=order.payment_token,
    )


async def read_waiting(log: Log, order_id: str) -> bytes | None:
    """The public JSON of an order that came in by the open way and that nobody has taken up yet."""
    entry = await log.last(f"{INTAKE}.{order_id}")
    created = read_intake(entry, order_id) if entry is not None else None
    if not isinstance(created, Envelope):
        return None
    return msgspec.json.encode({"order_id": order_id, "status": "pending", "version": 0})


async def read_stock(log: Log, shards: int) -> dict[str, Any]:
    """Every stock item's levels as the journals have them; needs no instance running."""
    levels: dict[str, Any] = {}
    for shard in range(shards):
        actor = ACTORS["inventory"](Terms(), Place(shard, shards))
        memory = await recall_own(log, Address("inventory", shard), actor)
        for state in memory.live.values():
            if isinstance(state, Stock):
                levels[state.sku] = {
                    "initial": state.initial,
                    "on_hand": state.on_hand,
                    "reserved": state.reserved,
                    "available": state.available,
                    "sold": state.sold,
                }
    return dict(sorted(levels.items()))


async def _answer_of(ask: Ask) -> Answer:
    try:
        return await ask.wait_answered()
    except AskFailedError as error:
        raise Unavailable(
            "the shard restarted; it may have happened: ask the same again"
        ) from error
