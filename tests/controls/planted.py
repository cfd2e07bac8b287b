"""Bugs that somebody could have written. Each has to be caught, or the checks are worth nothing.

Nothing in the product knows of these: they are put in from outside, into this process by a test (`put` is pytest's
`monkeypatch.setattr`), or into a process of its own (`site/sitecustomize.py`).
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import trio

from actors import inventory, order, payment
from actors.actor import Step
from messages import record
from messages.generated.orders.v1 import OrderReserved, PaymentRefused
from messages.record import Record, encode_record
from runtime import gateway, jetstream, memory, shard
from runtime.archive import Archive
from runtime.clock import LogClock
from runtime.mailbox import Delivery

Put = Callable[[object, str, object], None]


def ack_before_processing(put: Put) -> None:
    """C3: the cursor is stored when the facts are taken, and what they led to only later."""
    take = shard.Shard._take

    async def take_and_ack(self: shard.Shard, group: Any, most: int) -> Any:
        items = await take(self, group, most)
        delivered = [item.after for item in items if isinstance(item, Delivery)]
        if delivered:
            self._turn += 1
            acked = encode_record(Record(self._owner, self._turn, max(delivered)))
            self._memory.seq = await self._around.log.append(
                self.address.journal, acked, expect=self._memory.seq
            )
            self._memory.cursor = max(delivered)
        return items

    put(shard.Shard, "_take", take_and_ack)


def no_idempotency_key(put: Put) -> None:
    """C4: each request to charge is a new one to the provider."""
    numbers = itertools.count(1)
    request = gateway.charge_request

    def fresh(call: Any) -> Any:
        return replace(request(call), key=f"{call.key}:{next(numbers)}")

    put(gateway, "charge_request", fresh)


def forget_the_finished(put: Put) -> None:
    """C5: what has been dealt with is known for as long as the process lives, as a window of message ids is."""
    recall = shard.recall_own

    async def recall_without_archive(*args: Any) -> Any:
        known = await recall(*args)
        known.archive = Archive()
        return known

    put(shard, "recall_own", recall_without_archive)


def no_fence(put: Put) -> None:
    """C6: an append is taken whoever has appended meanwhile."""
    for keeper in (memory.MemoryLog, jetstream.JetStreamLog):
        _take_everything(put, keeper)


def _take_everything(put: Put, keeper: Any) -> None:
    append = keeper.append

    async def append_anyway(self: Any, subject: str, payload: bytes, **more: Any) -> int:
        seq: int = await append(self, subject, payload, **{**more, "expect": None})
        return seq

    put(keeper, "append", append_anyway)


def answer_before_it_is_durable(put: Put) -> None:
    """C7: whoever asked is answered as soon as it is decided."""
    commit = shard.Shard._commit

    async def answer_then_commit(self: shard.Shard, group: Any) -> None:
        for ask, answer in group.answers:
            ask.resolve(answer)
        await commit(self, group)

    put(shard.Shard, "_commit", answer_then_commit)


def float_money(put: Put) -> None:
    """C8: amounts pass through a floating-point number of pounds."""

    def in_pounds(**fields: Any) -> OrderReserved:
        pounds = fields["amount_minor"] / 100
        return OrderReserved(**{**fields, "amount_minor": int(pounds * 100)})

    put(order, "OrderReserved", in_pounds)


def swallow_everything(put: Put) -> None:
    """C9: an actor that catches BaseException and goes on."""
    hear = shard.Shard._hear

    async def hear_for_ever(self: shard.Shard) -> None:
        while True:
            try:
                await hear(self)
            except BaseException:  # noqa: BLE001  # That is the bug.
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.05)

    put(shard.Shard, "_hear", hear_for_ever)


def lose_traces_on_recovery(put: Put) -> None:
    """C10: what is heard again after a restart is heard without the context that it came with."""
    open_hop, recall = shard.Shard._open_hop, shard.Shard._recall
    recovered: set[shard.Shard] = set()

    async def recall_and_note(self: shard.Shard, mine_seq: int) -> Any:
        known = await recall(self, mine_seq)
        if known.live or known.recent:
            recovered.add(self)
        return known

    def open_without(self: shard.Shard, item: Any, heard: Any, parent: str, state: str) -> Any:
        return open_hop(self, item, heard, "" if self in recovered else parent, state)

    put(shard.Shard, "_recall", recall_and_note)
    put(shard.Shard, "_open_hop", open_without)


def believe_damaged_bytes(put: Put) -> None:
    """C11: a record is read without looking at its checksum."""
    put(record, "unframe", lambda payload: payload[record._HEAD :])


def wall_clock(put: Put) -> None:
    """C12: deadlines go by the machine's wall clock."""

    def when(_self: LogClock, at_ms: int) -> float:
        return trio.current_time() + at_ms / 1000 - time.time()

    put(LogClock, "now_ms", lambda _self: int(time.time() * 1000))
    put(LogClock, "when", when)


def one_tenant(put: Put) -> None:
    """C13: an idempotency key means the same order whoever sends it."""
    from runtime.edge import public

    derive = public.order_id_for  # type: ignore[attr-defined]  # Imported there.
    put(public, "order_id_for", lambda key, *_tenant: derive(key))


def give_up_without_asking(put: Put) -> None:
    """C14: a payment whose outcome is unknown counts as refused."""

    def refuse(_self: Any, state: payment.PaymentState, _now_ms: int) -> Step:
        refused = PaymentRefused(order_id=state.order_id, code="gateway_error")
        return Step({state.order_id: None}, (refused,))

    put(payment.PaymentActor, "_charge_unknown", refuse)


def release_twice(put: Put) -> None:
    """C15: what a reservation held goes back to the shelf, and then once more."""
    give_up = inventory._give_up

    def give_up_twice(states: Any, order_id: str, *, sold: bool) -> Step:
        step = give_up(states, order_id, sold=sold)
        held = states.get(inventory.reservation_key(order_id))
        changed = dict(step.states)
        for line in held.lines if held is not None and not sold else ():
            key = inventory.stock_key(line.sku)
            stock: Any = changed[key]
            changed[key] = msgspec.structs.replace(stock, reserved=stock.reserved - line.quantity)
        return replace(step, states=changed)

    put(inventory, "_give_up", give_up_twice)


PLANTED: dict[str, Callable[[Put], None]] = {
    "C3": ack_before_processing,
    "C4": no_idempotency_key,
    "C5": forget_the_finished,
    "C6": no_fence,
    "C7": answer_before_it_is_durable,
    "C8": float_money,
    "C9": swallow_everything,
    "C10": lose_traces_on_recovery,
    "C11": believe_damaged_bytes,
    "C12": wall_clock,
    "C13": one_tenant,
    "C14": give_up_without_asking,
    "C15": release_twice,
}
