"""A finished run of the real actors, and hands to make one thing at a time wrong in it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.inventory import Reservation, Stock
from actors.order_state import OrderState
from messages.codec import encode
from messages.generated.orders.v1 import PaymentRetried
from messages.record import Change, Envelope, RawRecord, Record, encode_record
from runtime.audit import Attempt, History, Op, Report, Told, audit
from runtime.log import Entry
from runtime.memory import EPOCH_MS

STATES = {"order": OrderState, "inventory": Stock | Reservation}
ORDERS = ("plain", "short", "declined", "slow", "regretted", "stranger")


class Evidence:
    """All that a run has left, ready to be tampered with."""

    def __init__(self, shop: Any) -> None:
        self.counts = shop.counts
        self.entries: list[Entry] = list(shop.store.entries)
        self.snapshots = dict(shop.store.snapshots)
        self.views = dict(shop.store.views)
        self.ledger = list(shop.ledger.lines)

    def audit(self, **given: Any) -> Report:
        history = History(self.counts, self.snapshots, keeps_spans="spans" in given)
        history.add_all(self.entries)
        return audit(history, **{"ledger": self.ledger, "views": self.views, **given})

    def forget_snapshots(self) -> None:
        """For tests that rewrite what snapshots would contradict."""
        self.snapshots = {}

    # --- tampering ---

    def rewrite(self, actor: str, change: Callable[[Record], Record | None]) -> None:
        """Let each record of an actor be what `change` makes of it; None takes it out of the log."""
        before, self.entries = self.entries, []
        for entry in before:
            made: Record | None = None
            if not entry.subject.startswith(f"ORDER.journal.{actor}."):
                self.entries.append(entry)
            elif (made := change(_record_of(entry.payload))) is not None:
                self.entries.append(replace(entry, payload=encode_record(made)))

    def rewrite_states(self, actor: str, change: Callable[[Any], Any]) -> None:
        """Let each state of an actor be what `change` makes of it."""
        decode = msgspec.msgpack.Decoder(STATES[actor]).decode

        def states(record: Record) -> Record:
            made = [
                msgspec.structs.replace(
                    one, state=msgspec.msgpack.encode(change(decode(one.state)))
                )
                if one.state is not None
                else one
                for one in record.states
            ]
            return replace(record, states=made)

        self.rewrite(actor, states)

    def rewrite_facts(self, actor: str, change: Callable[[Envelope], Envelope]) -> None:
        """Let each fact that an actor said be what `change` makes of it."""
        self.rewrite(actor, lambda record: replace(record, facts=[*map(change, record.facts)]))

    def drop_facts(self, actor: str, kind: str, order_id: str) -> None:
        """Let nobody hear one fact: what stands behind it in its record keeps its place."""
        nothing = PaymentRetried(order_id=order_id)

        def without(sent: Envelope) -> Envelope:
            is_it = (type(sent.fact).__name__, sent.correlation_id) == (kind, order_id)
            return Envelope(nothing, order_id, traceparent=sent.traceparent) if is_it else sent

        self.rewrite_facts(actor, without)

    def drop_states(self, actor: str, *keys: str) -> None:
        """Let keys never have been there."""

        def without(record: Record) -> Record:
            kept: Sequence[Change] = [one for one in record.states if one.key not in keys]
            return replace(record, states=kept)

        self.rewrite(actor, without)

    def journal(self) -> list[Attempt]:
        """What careful clients of this run would have written down."""
        return [
            *(place(order_id, at_ms=EPOCH_MS + n) for n, order_id in enumerate(ORDERS)),
            Attempt(Op.CANCEL, EPOCH_MS + 50, Told.ACCEPTED, order_id="regretted", code=200),
            Attempt(
                Op.READ,
                EPOCH_MS + 60_000,
                Told.ACCEPTED,
                order_id="plain",
                code=200,
                version=3,
                status="confirmed",
            ),
        ]


def place(order_id: str, *, at_ms: int, **more: Any) -> Attempt:
    known = {"code": 202, "took_ms": 2.0, "key": f"key of {order_id}", "order_id": order_id}
    return Attempt(Op.PLACE, at_ms, Told.ACCEPTED, **{**known, **more})


def _record_of(payload: bytes) -> Record:
    raw = RawRecord(payload)
    facts = [sent for sent in raw.facts if isinstance(sent, Envelope)]
    return Record(raw.owner, raw.turn, raw.cursor, raw.states, facts, raw.letters)


_finished: list[Any] = []  # One run serves all tests: they tamper with copies.


@pytest.fixture
def evidence(open_shop: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """What a shop has left that confirmed, rejected, cancelled and refunded orders, and was stopped in order."""
    if not _finished:
        # What shares a record depends on whose turn it is: here always the same.
        monkeypatch.setattr(trio._core._run, "_r", Random(0))
        monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio.run(_play, open_shop, clock=MockClock(autojump_threshold=0))
    return Evidence(_finished[0])


async def _play(open_shop: Callable[[], Any]) -> None:
    async with open_shop() as shop:
        await shop.start()
        await shop.count(a=100, b=100, c=1)
        await shop.place("plain", a=2, b=1)
        await shop.place("short", c=5)
        await shop.place("declined", "tok_declined", b=1)
        await shop.place("slow", "tok_slow", a=1)
        await shop.place("regretted", "tok_slow", a=1)
        await shop.publish("stranger", encode(shop.order("stranger", b=2)))
        await shop.wait_status("regretted", "reserved")
        await shop.cancel("regretted")
        for order_id in ORDERS:
            await shop.wait_status(order_id, "confirmed", "rejected", "cancelled")
        await shop.process.stop()
        _finished.append(shop)


@pytest.fixture
def placed() -> Callable[..., Attempt]:
    """An accepted request for an order."""
    return place
