"""What passes a seam is lost, doubled or delayed there, and nothing else is changed."""

from collections.abc import Callable
from typing import Any

import pytest
import structlog
import trio
import trio.lowlevel
from trio.testing import MockClock

from actors import Terms
from actors.actor import Outcome
from messages.codec import encode
from messages.generated.orders.v1 import StockCounted
from messages.record import Cursor
from runtime.bridge import Address as BrokerAddress
from runtime.clock import LogClock
from runtime.desk import Desk
from runtime.desk_types import NewItem, NewOrder, Unavailable
from runtime.faults import POINTS, Faults, Hands
from runtime.faults.seams import (
    breakable_bridge,
    breakable_desk,
    breakable_log,
    breakable_provider,
)
from runtime.gateway import NoReplyError
from runtime.gateway_contract import Request
from runtime.jetstream import JetStreamLog, Layout
from runtime.log import APPEND_S, BrokerLostError
from runtime.mailbox import Delivery, Mailbox
from runtime.memory import MemoryLog, MemoryStore
from runtime.recall import INTAKE, JOURNALS, Address
from runtime.shards import Shards
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger
from runtime.tail import Tail
from runtime.testing import Stage
from runtime.tracing import Tracer
from runtime.views import Views

COUNTS = {"order": 1, "inventory": 1, "payment": 1}
CHARGE = Request(
    "POST",
    "/charges",
    key="o1:charge",
    body=b'{"reference":"o1","amount_minor":5,"currency":"GBP","token":"tok_ok"}',
)
JOURNAL = f"{JOURNALS}.order.0"


class Counted:
    """Something else, and which of its methods were asked for."""

    def __init__(self, inner: Any) -> None:
        self.calls: list[str] = []
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._inner, name)


@pytest.fixture
def loose() -> Faults:
    return Faults(Hands(COUNTS, lambda *_: None))


def test_where_faults_are_off_nothing_stands_between_the_parts() -> None:
    log, provider, desk = MemoryLog(), Simulator(Ledger()), object()
    assert breakable_log(log, None) is log
    assert breakable_provider(provider, None) is provider
    assert breakable_desk(desk, None) is desk  # type: ignore[arg-type]
    assert type(breakable_bridge(BrokerAddress([]), "i1", None)).__name__ == "Bridge"


@pytest.mark.parametrize(("point", "stored"), [("log.before-append", 0), ("log.after-append", 1)])
async def test_a_lost_append_was_not_stored_and_one_whose_answer_is_lost_was(
    loose: Faults, point: str, stored: int
) -> None:
    store = MemoryStore()
    log = breakable_log(MemoryLog(store), loose)
    loose.inject(point, "drop", actor="order", shard=0)
    with pytest.raises(BrokerLostError, match="injected"):
        await log.append(JOURNAL, b"1", expect=0)
    assert len(store.entries) == stored
    await log.append(JOURNAL, b"2", expect=stored)
    assert len(store.entries) == stored + 1


async def test_an_append_that_hangs_ends_in_time_even_cancelled(
    loose: Faults, autojump_clock: MockClock
) -> None:
    log = breakable_log(MemoryLog(), loose)
    loose.inject("log.before-append", "hang")
    with trio.move_on_after(1), pytest.raises(BrokerLostError, match="no answer"):
        await log.append(JOURNAL, b"1", expect=0)
    assert trio.current_time() == pytest.approx(APPEND_S)


async def test_a_doubled_append_is_stored_once_where_it_is_fenced_and_twice_where_not(
    loose: Faults,
) -> None:
    store = MemoryStore()
    log = breakable_log(MemoryLog(store), loose)
    loose.inject("log.before-append", "duplicate", times=2)
    assert await log.append(JOURNAL, b"fenced", expect=0) == 1
    assert len(store.entries) == 1
    assert await log.append(f"{INTAKE}.o1", b"open") == 2
    assert [entry.payload for entry in store.entries] == [b"fenced", b"open", b"open"]


async def test_lost_entries_are_the_end_of_their_reader(loose: Faults) -> None:
    log = breakable_log(MemoryLog(), loose)
    await log.append(JOURNAL, b"1")
    loose.inject("log.after-take", "drop")
    async with log.read(0, [JOURNAL]) as reader:
        with pytest.raises(BrokerLostError, match="entries were dropped"):
            await reader.take()


@pytest.mark.parametrize(
    ("point", "taken"), [("gateway.before-request", 0), ("gateway.after-request", 1)]
)
async def test_a_lost_request_takes_no_money_and_a_lost_reply_leaves_it_taken(
    loose: Faults, point: str, taken: int
) -> None:
    ledger = Ledger()
    provider = breakable_provider(Simulator(ledger), loose)
    loose.inject(point, "drop", fact="Charge", order="o1")
    with pytest.raises(NoReplyError, match="injected"):
        await provider.send(CHARGE)
    assert len(ledger.captures("o1")) == taken
    assert (await provider.send(CHARGE)).status == 201
    assert len(ledger.captures("o1")) == 1


async def test_a_doubled_request_takes_the_money_once(loose: Faults) -> None:
    ledger = Ledger()
    provider = Counted(Simulator(ledger))
    loose.inject("gateway.before-request", "duplicate")
    reply = await breakable_provider(provider, loose).send(CHARGE)
    assert reply.status == 201
    assert provider.calls == ["send", "send"]
    assert len(ledger.captures("o1")) == 1


@pytest.mark.parametrize(
    ("request_", "fact"),
    [
        (CHARGE, "Charge"),
        (Request("GET", "/charges", reference="o1"), "Enquiry"),
        (Request("POST", "/refunds", key="o1:refund", body=b"{}"), "Refund"),
    ],
)
async def test_a_request_is_told_by_its_call_and_its_order(
    loose: Faults, request_: Request, fact: str
) -> None:
    loose.inject("gateway.before-request", "drop", actor="payment", fact=fact, order="o1")
    with pytest.raises(NoReplyError):
        await breakable_provider(Simulator(Ledger()), loose).send(request_)


async def test_a_record_read_twice_is_heard_once(
    loose: Faults, nursery: trio.Nursery, make_order: Callable[..., Any]
) -> None:
    log, mailbox = MemoryLog(), Mailbox()
    for order_id in ("o1", "o2"):
        await log.append(f"{INTAKE}.{order_id}", encode(make_order(order_id)))
    loose.inject("tail.before-delivery", "duplicate", order="o1")
    tail = Tail(log, Shards(Terms(), COUNTS).routes(), LogClock(), loose)
    await nursery.start(tail.run)
    tail.join(Address("order", 0), mailbox, Cursor())
    while tail.position < 2:
        await trio.lowlevel.checkpoint()
    assert [seq for seq, _ in tail._window] == [1, 1, 2]
    heard = [item for item in await mailbox.take(10) if isinstance(item, Delivery)]
    assert [delivery.seq for delivery in heard] == [1, 2]
    nursery.cancel_scope.cancel()


# --- the desk ---


@pytest.fixture
async def desk(stage: Stage) -> Any:
    """The desk of the stage, with its points."""
    log = MemoryLog(stage.store)
    parts = (stage.shards, Views(log), log, Tracer())
    real = Desk(*parts, instance_id="i1", connected=lambda: True, describe_tree=dict)
    await stage.ask("inventory", "hat", StockCounted(sku="hat", on_hand=100))
    return breakable_desk(real, stage.faults)


NEW = NewOrder("o1", "c1", "GBP", (NewItem("hat", 2, 100),), "tok_ok")


@pytest.mark.parametrize("point", [name for name in POINTS if name.startswith("http.")])
async def test_every_point_of_the_desk_is_reached(
    desk: Any, faults: Faults, autojump_clock: Any, point: str
) -> None:
    faults.inject(point, "delay", fact="OrderCreated", order="o1")
    faults.inject(point, "delay", fact="CancelAsked", order="o1")
    await desk.place(NEW, traceparent=None)
    await desk.cancel("o1", traceparent=None)
    assert faults.fired[point, "delay"] == 2


@pytest.mark.parametrize(
    ("point", "is_placed"), [("http.before-ask", False), ("http.before-answer", True)]
)
async def test_a_lost_request_or_answer_gets_503_and_asking_again_is_safe(
    desk: Any, stage: Stage, faults: Faults, autojump_clock: Any, point: str, is_placed: bool
) -> None:
    faults.inject(point, "drop")
    with pytest.raises(Unavailable, match="injected"):
        await desk.place(NEW, traceparent=None)
    assert ("o1" in stage.shards.running()[Address("order", 0)]._memory.live) is is_placed
    assert (await desk.place(NEW, traceparent=None)).outcome is Outcome.DONE


async def test_a_doubled_request_is_one_order(
    desk: Any, stage: Stage, faults: Faults, autojump_clock: Any
) -> None:
    counted = Counted(desk._desk)
    twice = breakable_desk(counted, faults)
    faults.inject("http.before-ask", "duplicate", times=2)
    assert (await twice.place(NEW, traceparent=None)).outcome is Outcome.DONE
    await stage.wait_view("o1", status="confirmed")
    assert (await twice.cancel("o1", traceparent=None)).outcome is Outcome.TOO_LATE
    assert counted.calls == ["place", "place", "cancel", "cancel"]
    assert len(stage.ledger.captures("o1")) == 1


# --- the wire


@pytest.mark.parametrize("action", ["drop", "duplicate"])
async def test_a_reader_notices_a_record_that_the_wire_has_lost_or_doubled(
    own_nats_server: Any, loose: Faults, nursery: trio.Nursery, action: str
) -> None:
    bridge = breakable_bridge(BrokerAddress([own_nats_server.url]), "i1", loose)
    await nursery.start(bridge.run)
    with trio.fail_after(10):
        await bridge.wait_connected()
        log = JetStreamLog(bridge)
        await log.prepare(Layout(3600, 1, COUNTS))
        after = await log.last_seq()
        loose.inject("wire.message", action, actor="order", shard=0)
        sent = [await log.append(JOURNAL, b"%d" % n) for n in range(5)]
        with structlog.testing.capture_logs() as lines:
            async with log.read(after, [JOURNAL]) as reader:
                read: list[int] = []
                while len(read) < len(sent):
                    read += [entry.seq for entry in await reader.take()]
    assert read == sent
    assert [line["event"] for line in lines].count("reader_replaced") == 1
    assert loose.fired["wire.message", action] == 1
    nursery.cancel_scope.cancel()
