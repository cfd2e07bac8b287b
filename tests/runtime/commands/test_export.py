"""Exports: everything that the log has, once, in order; finite, and nothing hidden that cannot be read."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from messages.codec import encode
from messages.generated.orders.v1 import Line, OrderCreated, OrderItem, OrderOpened
from messages.record import Cursor, Envelope, Record, encode_record
from runtime import logs
from runtime.bridge import Address as BrokerAddress
from runtime.bridge import Bridge
from runtime.commands.export import write_events, write_letters, write_orders
from runtime.commands.output import plain
from runtime.config import load
from runtime.config_variables import LogLevel
from runtime.embedded import EmbeddedServer
from runtime.jetstream import JetStreamLog, Layout
from runtime.log import DamagedError, Log
from runtime.memory import MemoryLog, MemoryStore
from runtime.reading import NothingStoredError, open_broker, read_order, read_to_end
from runtime.recall import Address

Json = Mapping[str, Any]
Export = Callable[[Log, Callable[[Iterable[Json]], Awaitable[None]]], Awaitable[None]]

JOURNAL = Address("order", 0).journal
EMPTY = encode_record(Record("test/1", 0, Cursor()))


async def lines_of(export: Any, store: MemoryStore, *args: Any) -> list[Json]:
    """What an export writes, all of it encodable as JSON."""
    lines: list[Json] = []

    async def write(values: Iterable[Json]) -> None:
        lines.extend(msgspec.json.decode(msgspec.json.encode(value)) for value in values)

    await export(MemoryLog(store), *args, write)
    return lines


@pytest.fixture
async def busy(shop: Any) -> Any:
    """A killed shop: orders confirmed, rejected and still open, and strangers at the open way in.

    Ask for `autojump_clock` beside it.
    """
    await shop.place("done", a=2, b=1)
    await shop.place("short", c=5)
    await shop.place("declined", "tok_declined", b=1)
    await shop.publish("stranger", encode(shop.order("stranger")))
    await shop.publish("nonsense", b"\xff\xff")
    for order_id in ("done", "short", "declined", "stranger"):
        await shop.wait_status(order_id, "confirmed", "rejected")
    await shop.place("open", "tok_slow", a=1)
    await shop.wait_status("open", "reserved")
    shop.process.kill()
    return shop


async def test_every_fact_is_a_line_in_the_order_of_the_log(
    busy: Any, autojump_clock: MockClock
) -> None:
    events = await lines_of(write_events, busy.store)
    places = [(event["seq"], event["index"]) for event in events]
    assert places == sorted(set(places))
    said = busy.said()
    created = [event for event in events if event["subject"].startswith("ORDER.created.")]
    assert len(events) == said.total() + len(created)
    assert {(event["type"], event["order_id"]) for event in events} > said.keys()
    done = [event["type"] for event in events if event["order_id"] == "done"]
    assert done[0] == "OrderOpened"
    assert done[-1] == "OrderConfirmed"


async def test_each_cause_is_a_line_before_its_effect(busy: Any, autojump_clock: MockClock) -> None:
    met: set[tuple[int, int]] = set()
    caused = 0
    for event in await lines_of(write_events, busy.store):
        if cause := event["cause"]:
            assert (cause["seq"], cause["index"]) in met
            caused += 1
        met.add((event["seq"], event["index"]))
    assert caused > 10


async def test_an_order_from_a_stranger_is_a_fact_and_nonsense_is_told_as_such(
    busy: Any, autojump_clock: MockClock
) -> None:
    events = await lines_of(write_events, busy.store)
    by_order = {event["order_id"]: event for event in events if event["type"] == "OrderCreated"}
    assert by_order["stranger"]["body"]["items"] == [
        {"sku": "a", "quantity": 1, "unit_price_minor": 100}
    ]
    assert by_order["nonsense"]["body"] is None
    assert "not a OrderCreated" in by_order["nonsense"]["unreadable"]


async def test_every_order_is_exported_as_the_public_sees_it(
    busy: Any, autojump_clock: MockClock
) -> None:
    views = await lines_of(write_orders, busy.store, busy.counts["order"])
    shown = {order_id: msgspec.json.decode(view) for order_id, view in busy.store.views.items()}
    assert {view["order_id"]: view for view in views} == shown
    assert len(views) == len(shown)
    assert {view["status"] for view in views} == {"confirmed", "rejected", "reserved"}


async def test_an_open_order_outlives_the_records_that_told_of_it(
    shop: Any, autojump_clock: MockClock
) -> None:
    """Parked for longer than RETENTION, it is in its shard's snapshot alone."""
    await shop.place("open", "tok_slow", a=1)
    view = await shop.wait_status("open", "reserved")
    await shop.process.stop()
    expired = MemoryStore()
    expired.snapshots = shop.store.snapshots
    assert await lines_of(write_orders, expired, shop.counts["order"]) == [view]
    assert await read_order(MemoryLog(expired), shop.counts["order"], "open") == view


async def test_one_order_is_read_from_its_journal_before_anything_else(
    busy: Any, autojump_clock: MockClock
) -> None:
    views, busy.store.views = busy.store.views, {}
    for order_id in ("done", "short", "open"):
        view = await read_order(MemoryLog(busy.store), busy.counts["order"], order_id)
        assert view == msgspec.json.decode(views[order_id])
    assert await read_order(MemoryLog(busy.store), busy.counts["order"], "nobodys") is None


async def test_one_order_that_the_journal_has_archived_is_read_from_its_view(
    busy: Any, autojump_clock: MockClock
) -> None:
    forgotten = MemoryStore()
    forgotten.views = busy.store.views
    view = await read_order(MemoryLog(forgotten), busy.counts["order"], "done")
    assert view == msgspec.json.decode(busy.store.views["done"])


async def test_one_order_that_nobody_has_taken_up_is_pending(shop: Any) -> None:
    store = MemoryStore()
    await MemoryLog(store).append("ORDER.created.new", encode(shop.order("new")))
    view = await read_order(MemoryLog(store), 2, "new")
    assert view == {"order_id": "new", "status": "pending", "version": 0}


async def test_a_letter_that_a_crash_stored_twice_is_one_line(
    busy: Any, autojump_clock: MockClock
) -> None:
    (stored,) = [entry for entry in busy.store.entries if entry.subject.startswith("ORDER.dead.")]
    await MemoryLog(busy.store).append(stored.subject, stored.payload, headers=stored.headers)
    (letter,) = await lines_of(write_letters, busy.store)
    assert letter["id"] == stored.headers["Orders-Letter-Id"]
    assert letter["order_id"] == "nonsense"
    assert letter["type"] == "OrderCreated"
    assert letter["about"]["subject"] == "ORDER.created.nonsense"
    assert "not a OrderCreated" in letter["reason"]
    assert (letter["body"], letter["payload"]) == (None, "//8=")


async def test_what_is_damaged_is_a_line_and_at_the_end_an_error(
    busy: Any, autojump_clock: MockClock
) -> None:
    whole = await lines_of(write_events, busy.store)
    await MemoryLog(busy.store).append(JOURNAL, EMPTY[:-1] + b"!")
    lines: list[Json] = []

    async def write(values: Iterable[Json]) -> None:
        lines.extend(values)

    with pytest.raises(DamagedError, match="1 messages of the log could not be read"):
        await write_events(MemoryLog(busy.store), write)
    assert len(lines) == len(whole) + 1
    assert "checksum" in lines[-1]["unreadable"]


@pytest.mark.parametrize("export", [write_events, write_letters])
async def test_an_empty_log_has_no_lines(export: Export) -> None:
    assert await lines_of(export, MemoryStore()) == []


async def test_a_reading_ends_where_the_log_ended_when_it_began(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    for _ in range(1_200):
        await log.append(JOURNAL, EMPTY)
    seen: list[int] = []

    async def on_entries(entries: Any) -> None:
        seen.extend(entry.seq for entry in entries)
        await log.append(JOURNAL, EMPTY)  # An instance goes on writing meanwhile.

    with trio.fail_after(1):
        await read_to_end(log, [JOURNAL], on_entries)
    assert seen == list(range(1, 1_201))


def test_a_message_is_told_under_the_names_of_its_proto_with_whole_integers() -> None:
    item = OrderItem(sku="hat", quantity=2, unit_price_minor=2**62)
    created = OrderCreated(order_id="o1", items=[item], total_minor=2**63 - 1)
    assert plain(created) == {
        "order_id": "o1",
        "customer_id": "",
        "items": [{"sku": "hat", "quantity": 2, "unit_price_minor": 2**62}],
        "currency": "",
        "total_minor": 2**63 - 1,
        "payment_token": "",
    }


async def test_what_a_broker_refuses_comes_out_as_itself(tmp_path: Path) -> None:
    """Not in a group, though servers and connections run in nurseries."""
    config = load({"NATS_STORE_DIR": str(tmp_path / "store")})
    with pytest.raises(NothingStoredError):
        async with open_broker(config):
            pass


@pytest.mark.slow
def test_where_nothing_runs_a_server_is_started_on_the_store_for_the_reading(
    orders: Any, tmp_path: Path
) -> None:
    fact = OrderOpened(order_id="o1", lines=[Line(sku="hat", quantity=1)], expires_ms=1)
    record = encode_record(Record("i/1", 1, Cursor(), facts=[Envelope(fact, "o1")]))

    async def fill() -> None:
        logs.configure(LogLevel.ERROR)
        server = EmbeddedServer(tmp_path / "store")
        bridge = Bridge(BrokerAddress([server.url]))
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            await nursery.start(bridge.run)
            await bridge.wait_connected()
            log = JetStreamLog(bridge)
            shards = {"order": 2, "inventory": 2, "payment": 1}
            await log.prepare(Layout(7 * 86_400, 1, shards))
            await log.append(JOURNAL, record)
            nursery.cancel_scope.cancel()

    trio.run(fill)
    for _ in range(2):  # It lets go of the store again.
        done = orders("export", "events")
        assert (done.code, done.err) == (0, "")
        (event,) = done.lines
        assert event["type"] == "OrderOpened"
        assert event["body"]["lines"] == [{"sku": "hat", "quantity": 1}]
