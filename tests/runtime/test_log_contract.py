"""The contract of `runtime.log`, kept by both keepers; then what only JetStream can get wrong."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import nats
import pytest
import trio
import trio.testing
import trio_asyncio

from runtime import jetstream_reader, jetstream_snapshots, link, memory
from runtime.bridge import Address, Bridge
from runtime.jetstream import CLAIM, JetStreamLog, Layout, StreamMismatchError
from runtime.jetstream_api import Api
from runtime.log import (
    APPEND_S,
    BrokerConfigError,
    BrokerLostError,
    DamagedError,
    Entry,
    FencedError,
    Log,
    Reader,
    RefusedError,
)
from runtime.memory import MemoryLog, MemoryStore

LAYOUT = Layout(retention_s=3600.0, replicas=1, shards={"order": 2, "payment": 1})
STREAMS = ("ORDERS", "KV_orders", "OBJ_snapshots")


class MemoryKeeper:
    defaults = memory._Connection.ask.__kwdefaults__

    def __init__(self) -> None:
        self._store = MemoryStore()
        self._clients: list[MemoryLog] = []

    async def client(self) -> Log:
        self._clients.append(MemoryLog(self._store))
        return self._clients[-1]

    async def expire_all(self) -> None:
        self._store.expire(len(self._store.entries))

    async def fall_silent(self) -> None:
        async def wait(*_: Any) -> None:
            await trio.sleep_forever()

        for client in self._clients:
            client.before_append = wait

    async def crash(self) -> None:
        for client in self._clients:
            client.disconnect()

    async def come_back(self) -> None:
        for client in self._clients:
            client.reconnect()


class JetStreamKeeper:
    defaults = Bridge.request.__kwdefaults__

    def __init__(self, server: Any, nursery: trio.Nursery) -> None:
        self.server = server
        self.bridges: list[Bridge] = []
        self._nursery = nursery

    async def bridge(self) -> Bridge:
        bridge = Bridge(Address([self.server.url]))
        await self._nursery.start(bridge.run)
        await bridge.wait_connected()
        self.bridges.append(bridge)
        return bridge

    async def client(self) -> JetStreamLog:
        bridge = await self.bridge()
        log = JetStreamLog(bridge)
        if len(self.bridges) == 1:
            await self._start_anew(bridge, log)
        return log

    async def _start_anew(self, bridge: Bridge, log: JetStreamLog) -> None:
        for stream in STREAMS:
            await bridge.request(f"$JS.API.STREAM.DELETE.{stream}")
        with trio.fail_after(10):
            while True:
                try:
                    return await log.prepare(LAYOUT)
                except BrokerLostError:  # The server is still removing the files of the last one.
                    await trio.sleep(0.01)

    async def expire_all(self) -> None:
        api = Api(self.bridges[0])
        config = (await api.call("STREAM.INFO.ORDERS"))["config"]
        soon = {"max_age": 100_000_000, "duplicate_window": 100_000_000}
        answer = await api.call("STREAM.UPDATE.ORDERS", config | soon)
        while answer["state"]["messages"]:
            await trio.sleep(0.02)
            answer = await api.call("STREAM.INFO.ORDERS")

    async def fall_silent(self) -> None:
        self.server.freeze()

    async def crash(self) -> None:
        self.server.kill()

    async def come_back(self) -> None:
        for bridge in self.bridges:
            await bridge.wait_disconnected()
        self.server.start()
        for bridge in self.bridges:
            await bridge.wait_connected()


@pytest.fixture
def real(nats_server: Any, nursery: trio.Nursery) -> JetStreamKeeper:
    return JetStreamKeeper(nats_server, nursery)


@pytest.fixture(params=["memory", "jetstream"])
def keeper(request: pytest.FixtureRequest) -> Any:
    return MemoryKeeper() if request.param == "memory" else request.getfixturevalue("real")


@pytest.fixture
async def log(keeper: Any) -> Log:
    client: Log = await keeper.client()
    return client


async def take(reader: Reader, count: int) -> list[Entry]:
    entries: list[Entry] = []
    with trio.fail_after(10):
        while len(entries) < count:
            entries += await reader.take()
    return entries


def payloads(entries: Sequence[Entry]) -> list[bytes]:
    return [entry.payload for entry in entries]


# --- append and fence


async def test_what_is_appended_is_the_newest_on_its_subject(log: Log) -> None:
    seq = await log.append("ORDER.journal.order.0", b"one", headers={"traceparent": "00-ab-cd-01"})
    await log.append("ORDER.journal.order.1", b"other")
    entry = await log.last("ORDER.journal.order.0")
    assert entry is not None
    assert (entry.seq, entry.payload, entry.headers) == (
        seq,
        b"one",
        {"traceparent": "00-ab-cd-01"},
    )
    assert await log.last("ORDER.journal.order.7") is None


async def test_sequences_count_up_over_all_subjects(log: Log) -> None:
    assert await log.last_seq() == 0
    seqs = [await log.append(f"ORDER.journal.order.{n}", b"") for n in (0, 1, 0)]
    assert seqs == [1, 2, 3]
    assert await log.last_seq() == 3


async def test_what_has_expired_is_gone_for_all_who_ask_and_sequences_go_on(
    keeper: Any, log: Log
) -> None:
    assert await log.first_seq() == 1
    for n in (0, 1):
        await log.append(f"ORDER.journal.order.{n}", b"old")
    assert await log.first_seq() == 1
    await keeper.expire_all()
    assert (await log.first_seq(), await log.last_seq()) == (3, 2)
    assert await log.last("ORDER.journal.order.0") is None
    assert await log.append("ORDER.journal.order.0", b"new", expect=0) == 3
    async with log.read(0, ["ORDER.>"]) as reader:
        assert payloads(await take(reader, 1)) == [b"new"]
        assert reader.backlog == 1


async def test_an_append_that_expects_the_newest_is_stored(log: Log) -> None:
    first = await log.append("ORDER.journal.order.0", b"1", expect=0)
    await log.append("ORDER.journal.order.1", b"elsewhere")
    assert await log.append("ORDER.journal.order.0", b"2", expect=first) == 3


@pytest.mark.parametrize("expect", [0, 1, 99])
async def test_an_append_that_expects_anything_else_is_fenced_and_not_stored(
    log: Log, expect: int
) -> None:
    await log.append("ORDER.journal.order.0", b"1")
    await log.append("ORDER.journal.order.0", b"2")
    with pytest.raises(FencedError):
        await log.append("ORDER.journal.order.0", b"3", expect=expect)
    assert await log.last_seq() == 2


async def test_who_was_taken_over_can_append_no_more(keeper: Any, log: Log) -> None:
    successor: Log = await keeper.client()
    mine = await log.append("ORDER.journal.order.0", b"old owner", expect=0)
    theirs = await successor.append("ORDER.journal.order.0", b"taken over", expect=mine)
    with pytest.raises(FencedError):
        await log.append("ORDER.journal.order.0", b"zombie", expect=mine)
    entry = await log.last("ORDER.journal.order.0")
    assert entry is not None
    assert entry.seq == theirs


async def test_of_two_owners_at_once_exactly_one_wins(keeper: Any, log: Log) -> None:
    clients: list[Log] = [log, await keeper.client()]
    outcomes: list[str] = []

    async def own(client: Log) -> None:
        try:
            await client.append("ORDER.journal.order.0", b"mine", expect=0)
            outcomes.append("won")
        except FencedError:
            outcomes.append("fenced")

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(own, client)
    assert sorted(outcomes) == ["fenced", "won"]


async def test_nobody_cancels_an_append(log: Log) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        seq = await log.append("ORDER.journal.order.0", b"", expect=0)
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert seq == await log.last_seq() == 1


async def test_a_cancellable_append_need_not_be_waited_for(keeper: Any, log: Log) -> None:
    await keeper.fall_silent()
    with trio.fail_after(1), trio.move_on_after(0.01) as scope:
        await log.append("ORDER.journal.order.0", b"", cancellable=True)
    assert scope.cancelled_caught


async def test_an_append_that_nobody_answers_ends_in_time_even_cancelled(
    keeper: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keeper.defaults["timeout_s"] + link.LOOK_PERIOD_S < APPEND_S
    monkeypatch.setitem(keeper.defaults, "timeout_s", 0.05)
    await keeper.fall_silent()
    with trio.move_on_after(0.01), pytest.raises(BrokerLostError, match="no answer"):
        await log.append("ORDER.journal.order.0", b"")


async def test_times_never_go_back_and_are_the_same_however_an_entry_is_read(log: Log) -> None:
    for n in range(3):
        await log.append("ORDER.journal.order.0", b"%d" % n)
    async with log.read(0, ["ORDER.journal.order.0"]) as reader:
        entries = await take(reader, 3)
    times = [entry.time_ms for entry in entries]
    assert times == sorted(times)
    assert times[0] > 1_600_000_000_000
    assert await log.last("ORDER.journal.order.0") == entries[-1]


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "ORDER.",
        "ORDER..x",
        "ORDER.a b",
        "ORDER.a\r\nPUB x 0",
        "ORDER.*",
        "ORDER.>",
        "ORDER.\u00e9",
        "ORDER.\x00",
        "ORDER." + "x" * 5000,
    ],
)
async def test_a_subject_no_broker_can_carry_is_refused(log: Log, subject: str) -> None:
    with pytest.raises(RefusedError, match="no subject"):
        await log.append(subject, b"")
    assert await log.append("ORDER.journal.order.0", b"and the connection lives") == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"a b": "x"},
        {"a": "x\r\ny: z"},
        {"a": "\u00e9"},
        {"a": "x" * 5000},
        {"Nats-Rollup": "all"},
        {"nats-ttl": "1s"},
        {"Nats-Expected-Stream": "x"},
    ],
)
async def test_headers_that_would_be_altered_or_obeyed_are_refused(
    log: Log, headers: dict[str, str]
) -> None:
    with pytest.raises(RefusedError, match="header"):
        await log.append("ORDER.journal.order.0", b"", headers=headers)
    assert await log.last_seq() == 0


async def test_the_largest_payload_passes_and_one_byte_more_is_refused(log: Log) -> None:
    full_headers = {"x": "y" * 4000}
    largest = bytes(log.payload_bytes_max)
    await log.append("ORDER.journal.order.0", largest, expect=0, headers=full_headers)
    async with log.read(0, ["ORDER.journal.>"]) as reader:
        assert payloads(await take(reader, 1)) == [largest]
    with pytest.raises(RefusedError, match="bytes"):
        await log.append("ORDER.journal.order.0", bytes(8 * 1024 * 1024 + 1))


# --- read


async def test_a_reader_gets_what_is_there_in_order_and_then_follows(log: Log) -> None:
    for n in range(3):
        await log.append(f"ORDER.journal.order.{n % 2}", b"%d" % n)
    async with log.read(0, ["ORDER.journal.>"]) as reader:
        assert reader.backlog == 3
        assert [entry.seq for entry in await take(reader, 3)] == [1, 2, 3]
        await log.append("ORDER.journal.order.0", b"later")
        assert payloads(await take(reader, 1)) == [b"later"]


@pytest.mark.parametrize("after", [0, 1, 4, 5, 9])
async def test_reading_starts_after_the_position_given(log: Log, after: int) -> None:
    for n in range(1, 6):
        await log.append("ORDER.journal.order.0", b"%d" % n)
    async with log.read(after, ["ORDER.journal.order.0"]) as reader:
        assert reader.backlog == max(0, 5 - after)
        assert [e.seq for e in await take(reader, reader.backlog)] == list(range(after + 1, 6))


@pytest.mark.parametrize(
    ("subjects", "seen"),
    [
        (["ORDER.journal.order.0"], "a"),
        (["ORDER.journal.*.0"], "ac"),
        (["ORDER.journal.order.*"], "ab"),
        (["ORDER.journal.>"], "abc"),
        (["ORDER.created.>", "ORDER.journal.order.1"], "bd"),
        (["ORDER.dead.>"], ""),
        (["ORDER.journal"], "e"),
        (["ORDER.*"], "e"),
        (["ORDER.journal.*"], ""),
    ],
)
async def test_wildcards_select_as_in_nats(log: Log, subjects: list[str], seen: str) -> None:
    await log.append("ORDER.journal.order.0", b"a")
    await log.append("ORDER.journal.order.1", b"b")
    await log.append("ORDER.journal.payment.0", b"c")
    await log.append("ORDER.created.o1", b"d")
    await log.append("ORDER.journal", b"e")
    async with log.read(0, subjects) as reader:
        assert reader.backlog == len(seen)
        assert b"".join(payloads(await take(reader, len(seen)))).decode() == seen


@pytest.mark.parametrize(
    "subjects",
    [[], ["ORDER.a..b"], ["ORDER.>.x"], ["ORDER.x*"], ["ORDER.a.*", "ORDER.a.b"], ["ORDER.>"] * 2],
)
async def test_filters_that_are_wrong_or_overlap_are_refused(log: Log, subjects: list[str]) -> None:
    with pytest.raises(RefusedError):
        async with log.read(0, subjects):
            pass


async def test_a_reader_that_waits_is_woken_by_an_append(log: Log) -> None:
    async with log.read(0, ["ORDER.journal.>"]) as reader, trio.open_nursery() as nursery:
        assert reader.backlog == 0
        got: list[bytes] = []

        async def wait() -> None:
            got.extend(payloads(await reader.take()))
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not got
        await log.append("ORDER.journal.order.0", b"at last")
        await trio.sleep(5)
    assert got == [b"at last"]


async def test_a_take_that_is_cancelled_loses_nothing(log: Log) -> None:
    async with log.read(0, ["ORDER.journal.>"]) as reader:
        for n in range(5):
            with trio.move_on_after(0.005):
                await reader.take()
            with trio.CancelScope() as scope:
                scope.cancel()
                await reader.take()
            await log.append("ORDER.journal.order.0", b"%d" % n)
            assert payloads(await take(reader, 1)) == [b"%d" % n]


async def test_one_reader_does_not_take_from_another(keeper: Any, log: Log) -> None:
    other: Log = await keeper.client()
    await log.append("ORDER.journal.order.0", b"for both")
    async with log.read(0, ["ORDER.>"]) as one, other.read(0, ["ORDER.>"]) as two:
        assert await take(one, 1) == await take(two, 1)


async def test_a_reader_holds_no_more_than_it_has_room_for(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "TAKE_MAX", 10)
    monkeypatch.setattr(jetstream_reader, "ROOM_ENTRIES", 10)
    for n in range(35):
        await log.append("ORDER.journal.order.0", b"%d" % n)
    takes: list[Sequence[Entry]] = []
    async with log.read(0, ["ORDER.journal.>"]) as reader:
        while sum(map(len, takes)) < 35:
            await trio.sleep(0.01)  # Time enough for a broker that ignores the room.
            takes.append(await reader.take())
    assert max(map(len, takes)) <= 10
    assert [entry.seq for entries in takes for entry in entries] == list(range(1, 36))


async def test_headers_of_outsiders_are_read_and_the_brokers_own_are_not(log: Log) -> None:
    await log.append("ORDER.created.o1", b"", expect=0, headers={"Content-Type": "x", "a": ""})
    async with log.read(0, ["ORDER.created.*"]) as reader:
        (entry,) = await take(reader, 1)
    assert entry.headers == {"Content-Type": "x", "a": ""}


# --- snapshots and views


@pytest.mark.parametrize("size", [0, 1, 512 * 1024, 2_000_001])
async def test_a_snapshot_comes_back_as_it_was(log: Log, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    assert await log.get_snapshot("order-0") is None
    await log.put_snapshot("order-0", b"older")
    await log.put_snapshot("order-0", data)
    await log.put_snapshot("order-1", b"another's")
    assert await log.get_snapshot("order-0") == data


async def test_the_newest_view_of_each_order_is_found(log: Log) -> None:
    await log.put_views({})
    await log.put_views({"o1": b"old", "o2": b"two"})
    await log.put_views({"o1": b"new"})
    assert await log.get_view("o1") == b"new"
    assert await log.get_view("o2") == b"two"
    assert await log.get_view("o3") is None


async def test_thousands_of_views_are_stored_in_one_call(log: Log) -> None:
    await log.put_views({f"o{n}": b"%d" % n for n in range(2_001)})
    for n in (0, 999, 1_000, 2_000):
        assert await log.get_view(f"o{n}") == b"%d" % n


@pytest.mark.parametrize("key", ["", "a.b", "a b", "a*", ">", "\u00e9", "x" * 256, "a\n"])
async def test_a_key_no_tool_could_ask_for_is_refused(log: Log, key: str) -> None:
    for call in (log.get_view(key), log.put_views({key: b""})):
        with pytest.raises(RefusedError, match="no key"):
            await call
    for call in (log.get_snapshot(key), log.put_snapshot(key, b"")):
        with pytest.raises(RefusedError, match="no key"):
            await call


async def test_who_claims_the_views_last_is_the_only_one_to_write_them(keeper: Any) -> None:
    older, newer = await keeper.client(), await keeper.client()
    await older.claim_views()
    await older.put_views({"o1": b"first"})
    await newer.claim_views()
    await newer.put_views({"o1": b"second"})
    for late in ({"o1": b"late"}, {f"o{n}": b"late" for n in range(1, 50)}):
        with pytest.raises(FencedError):
            await older.put_views(late)
    with pytest.raises(FencedError):
        await older.claim_views()
    assert await newer.get_view("o1") == b"second"
    assert await newer.get_view("o2") is None


async def test_a_claim_of_views_can_be_renewed(keeper: Any) -> None:
    log = await keeper.client()
    await log.claim_views()
    await log.claim_views()
    await log.put_views({f"o{n}": b"view" for n in range(50)})
    assert await log.get_view("o49") == b"view"


async def test_a_dead_clients_claim_that_arrives_late_takes_nothing_from_its_successor(
    keeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, successor = await keeper.client(), await keeper.client()
    arrive = await claim_and_die(dead, monkeypatch)
    await successor.claim_views()
    with pytest.raises(FencedError):
        await arrive()
    await successor.put_views({"o1": b"view"})
    await successor.claim_views()


async def test_a_claim_that_arrives_late_and_before_the_next_is_overtaken_by_it(
    keeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, successor = await keeper.client(), await keeper.client()
    arrive = await claim_and_die(dead, monkeypatch)
    late = await claim_and_die(successor, monkeypatch)
    monkeypatch.undo()
    await arrive()
    with pytest.raises(FencedError):
        await late()
    await successor.claim_views()
    await successor.put_views({"o1": b"view"})


async def claim_and_die(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Awaitable[object]]:
    """Let a client die when its claim is on its way. Returns what lets it arrive."""
    sender, method = (log, "carry") if isinstance(log, MemoryLog) else (log._api, "publish")
    send, sent = getattr(sender, method), list[Callable[[], Awaitable[object]]]()

    async def hold(what: str, *rest: Any) -> Any:
        if what in ("claim_views", CLAIM):
            sent.append(partial(send, what, *rest))
            life.cancel()
            await trio.sleep_forever()
        return await send(what, *rest)

    monkeypatch.setattr(sender, method, hold)
    with trio.CancelScope() as life:
        await log.claim_views()
    return sent.pop()


# --- losing the broker


async def test_when_the_broker_is_lost_everything_fails_at_once(keeper: Any, log: Log) -> None:
    await log.append("ORDER.journal.order.0", b"kept")
    async with log.read(1, ["ORDER.journal.>"]) as reader, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(BrokerLostError):
                await reader.take()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(2):
            await keeper.crash()
            for call in (
                log.append("ORDER.journal.order.0", b"lost"),
                log.last("ORDER.journal.order.0"),
                log.last_seq(),
                log.put_views({"o": b""}),
                log.get_snapshot("s"),
            ):
                with pytest.raises(BrokerLostError):
                    await call


async def test_when_the_broker_is_back_nothing_acknowledged_is_missing(
    keeper: Any, log: Log
) -> None:
    seqs = [await log.append("ORDER.journal.order.0", b"%d" % n) for n in range(20)]
    await log.put_views({"o1": b"view"})
    await log.put_snapshot("order-0", b"snapshot")
    await keeper.crash()
    await keeper.come_back()
    async with log.read(0, ["ORDER.>"]) as reader:
        assert [entry.seq for entry in await take(reader, 20)] == seqs
    assert await log.get_view("o1") == b"view"
    assert await log.get_snapshot("order-0") == b"snapshot"
    assert await log.append("ORDER.journal.order.0", b"on", expect=20) == 21


async def test_a_reader_from_before_stays_broken(keeper: Any, log: Log) -> None:
    async with log.read(0, ["ORDER.>"]) as reader:
        await keeper.crash()
        await keeper.come_back()
        await log.append("ORDER.journal.order.0", b"")
        for _ in range(2):
            with pytest.raises(BrokerLostError):
                await reader.take()


# --- JetStream alone


async def test_a_reader_survives_the_loss_of_its_consumer(real: JetStreamKeeper) -> None:
    log = await real.client()
    async with log.read(0, ["ORDER.>"]) as reader:
        await log.append("ORDER.journal.order.0", b"before")
        assert payloads(await take(reader, 1)) == [b"before"]
        name = reader._consumer._name
        await real.bridges[0].request(f"$JS.API.CONSUMER.DELETE.{name}")
        await log.append("ORDER.journal.order.0", b"after")
        assert payloads(await take(reader, 1)) == [b"after"]
        assert reader._consumer._name != name


async def test_a_gap_in_the_deliveries_is_noticed_and_read_again(real: JetStreamKeeper) -> None:
    log = await real.client()
    async with log.read(0, ["ORDER.>"]) as reader:
        consumer = reader._consumer
        deaf = real.bridges[0]._link._on_message  # type: ignore[union-attr]
        sid = consumer._subscription._sid
        hear, deaf[sid] = deaf[sid], lambda message: None
        await log.append("ORDER.journal.order.0", b"missed")
        await trio.sleep(0.02)
        deaf[sid] = hear
        await log.append("ORDER.journal.order.0", b"out of step")
        assert payloads(await take(reader, 2)) == [b"missed", b"out of step"]


async def test_a_gap_before_a_silence_is_noticed_by_the_heartbeat(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_reader, "HEARTBEAT_S", 0.1)
    log = await real.client()
    async with log.read(0, ["ORDER.>"]) as reader:
        deaf = real.bridges[0]._link._on_message  # type: ignore[union-attr]
        sid = reader._consumer._subscription._sid
        hear, deaf[sid] = deaf[sid], lambda message: None
        await log.append("ORDER.journal.order.0", b"missed")
        await trio.sleep(0.02)
        deaf[sid] = hear
        with trio.fail_after(2):
            assert payloads(await reader.take()) == [b"missed"]


async def test_a_consumer_that_falls_silent_is_replaced(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_reader, "SILENCE_S", 0.1)
    log = await real.client()
    async with log.read(0, ["ORDER.>"]) as reader:
        sid = reader._consumer._subscription._sid
        real.bridges[0]._link._on_message[sid] = lambda message: None  # type: ignore[union-attr]
        await log.append("ORDER.journal.order.0", b"unheard")
        with trio.fail_after(2):
            assert payloads(await reader.take()) == [b"unheard"]


async def test_a_pull_that_expires_is_renewed(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_reader, "PULL_EXPIRES_S", 0.2)
    monkeypatch.setattr(jetstream_reader, "HEARTBEAT_S", 0.1)
    log = await real.client()
    async with log.read(0, ["ORDER.>"]) as reader:
        consumer = reader._consumer
        with trio.move_on_after(0.5):
            await reader.take()
        await log.append("ORDER.journal.order.0", b"in the third pull")
        assert payloads(await take(reader, 1)) == [b"in the third pull"]
        assert reader._consumer is consumer


async def test_an_idle_reader_lives_on_heartbeats(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_reader, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(jetstream_reader, "SILENCE_S", 0.25)
    log = await real.client()
    async with log.read(0, ["ORDER.>"]) as reader:
        consumer = reader._consumer
        with trio.move_on_after(0.8):
            await reader.take()
        assert reader._consumer is consumer


async def test_a_closed_reader_leaves_no_consumer_behind(real: JetStreamKeeper) -> None:
    log = await real.client()
    async with log.read(0, ["ORDER.>"]):
        pass
    with trio.fail_after(5):
        while (await log._api.call("CONSUMER.NAMES.ORDERS"))["total"]:  # noqa: ASYNC110 - No event.
            await trio.sleep(0.01)


async def test_room_is_bounded_in_bytes_too(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_reader, "ROOM_BYTES", 0)
    monkeypatch.setattr(Bridge, "payload_bytes_max", 0)
    monkeypatch.setattr(jetstream_reader, "OVERHEAD_BYTES", 50_000)
    log = await real.client()
    real.bridges[0].payload_bytes_max = 0
    for _ in range(10):
        await log.append("ORDER.journal.order.0", bytes(20_000))
    async with log.read(0, ["ORDER.>"]) as reader:
        sizes: list[int] = []
        while sum(sizes) < 10:
            await trio.sleep(0.01)
            sizes.append(len(await reader.take()))
        assert max(sizes) <= 2
        assert reader._consumer._delivered == 10, "it was served by one consumer"


async def test_an_append_under_way_fails_promptly_when_the_broker_dies(
    real: JetStreamKeeper,
) -> None:
    log = await real.client()
    real.server.freeze()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(BrokerLostError):
                await log.append("ORDER.journal.order.0", b"?")

        for _ in range(3):
            nursery.start_soon(wait)
        await trio.sleep(0.05)
        real.server.kill()
        nursery.cancel_scope.deadline = trio.current_time() + 2
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_stream_with_other_shard_counts_is_a_configuration_error(
    real: JetStreamKeeper,
) -> None:
    log = await real.client()
    await log.prepare(LAYOUT)
    other = Layout(retention_s=60.0, replicas=1, shards={"order": 3, "payment": 1})
    with pytest.raises(StreamMismatchError, match=r"max_age is .*2 shards of order, not 3"):
        await log.prepare(other)
    await log.prepare(LAYOUT)  # Nothing was changed.


@pytest.mark.parametrize(
    ("broker_config", "reason"),
    [
        ("jetstream: disabled", "runs without JetStream"),
        (
            "accounts { A { users: [{user: a}] } }\nno_auth_user: a",
            "enable JetStream for this account",
        ),
    ],
)
async def test_a_broker_without_jetstream_is_a_configuration_error(
    real: JetStreamKeeper, broker_config: str, reason: str
) -> None:
    real.server.kill()
    real.server.start(broker_config)
    try:
        log = JetStreamLog(await real.bridge())
        with pytest.raises(BrokerConfigError, match=reason):
            await log.prepare(LAYOUT)
    finally:
        real.server.kill()


async def test_a_full_stream_refuses(real: JetStreamKeeper) -> None:
    log = await real.client()
    config = (await log._api.call("STREAM.INFO.ORDERS"))["config"]
    await log._api.call("STREAM.UPDATE.ORDERS", config | {"max_msgs": 1})
    await log.append("ORDER.journal.order.0", b"")
    with pytest.raises(RefusedError, match="maximum messages exceeded"):
        await log.append("ORDER.journal.order.0", b"")


async def test_a_stream_deleted_under_way_fails_closed(real: JetStreamKeeper) -> None:
    log = await real.client()
    await real.bridges[0].request("$JS.API.STREAM.DELETE.ORDERS")
    with pytest.raises(BrokerLostError, match="JetStream does not answer"):
        await log.append("ORDER.journal.order.0", b"")
    with pytest.raises(RefusedError, match="stream not found"):
        async with log.read(0, ["ORDER.>"]):
            pass


@pytest.mark.parametrize("instead", [[], [b"whol\xe5"], [b"who", b"le"]])
async def test_a_damaged_snapshot_is_told_from_none(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch, instead: list[bytes]
) -> None:
    log = await real.client()
    await log.put_snapshot("order-0", b"whole")
    info = await jetstream_snapshots._find(log._api, "order-0")
    assert info is not None
    chunks = f"$O.snapshots.C.{info.nuid}"
    await log._api.call("STREAM.PURGE.OBJ_snapshots", {"filter": chunks})
    for payload in instead:
        await log._api.publish(chunks, payload)
    monkeypatch.setattr(jetstream_snapshots, "TRY_WAIT_S", 0.001)
    with pytest.raises(DamagedError, match="order-0"):
        await log.get_snapshot("order-0")


async def test_a_put_that_died_half_way_leaves_the_old_snapshot(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await real.client()
    await log.put_snapshot("order-0", b"old")
    publish = log._api.publish

    async def die_at_the_second_message(subject: str, *args: Any) -> int:
        if ".M." in subject:
            raise BrokerLostError("died")
        return await publish(subject, *args)

    monkeypatch.setattr(log._api, "publish", die_at_the_second_message)
    with pytest.raises(BrokerLostError):
        await log.put_snapshot("order-0", b"new")
    monkeypatch.undo()
    assert await log.get_snapshot("order-0") == b"old"


async def test_what_is_put_again_unchanged_is_new_in_all_its_parts_and_there_at_every_moment(
    real: JetStreamKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, data = await real.client(), bytes(1_000_000)
    reader = await real.client()
    await log.put_snapshot("order-0/ab", data)
    stored = (await log._api.call("STREAM.INFO.OBJ_snapshots"))["state"]
    readings = 0

    def reading(request: Any) -> Any:
        async def request_and_read(*args: Any) -> Any:
            nonlocal readings
            answer = await request(*args)
            assert await reader.get_snapshot("order-0/ab") == data
            readings += 1
            return answer

        return request_and_read

    monkeypatch.setattr(log._api, "publish", reading(log._api.publish))
    monkeypatch.setattr(log._api, "call", reading(log._api.call))
    await log.put_snapshot("order-0/ab", data)
    monkeypatch.undo()
    again = (await log._api.call("STREAM.INFO.OBJ_snapshots"))["state"]
    assert (again["messages"], again["first_seq"]) == (3, stored["last_seq"] + 1)
    assert readings == 4  # After each of two chunks, what is known about them, and the purge.


async def test_a_replaced_snapshot_takes_no_more_room(real: JetStreamKeeper) -> None:
    log = await real.client()
    for _ in range(3):
        await log.put_snapshot("order-0", bytes(1_000_000))
    info = await log._api.call("STREAM.INFO.OBJ_snapshots")
    assert info["state"]["messages"] == 3, "two chunks and what is known about them"


@pytest.mark.parametrize(
    "command",
    [
        b"PUB ORDER.created.a\x0cb 1\r\nx\r\n",
        b"PUB ORDER.created.a\x0bb\x1c\x85 1\r\nx\r\n",
        b"PUB ORDER.created.\x00 1\r\nx\r\n",
        b"PUB ORDER.created.\xff\xfe 1\r\nx\r\n",
        b"PUB ORDER.created.*.> 1\r\nx\r\n",
        b"PUB ORDER.created.%b 1\r\nx\r\n" % (b"l" * 3_900),
        b"HPUB ORDER.created.a 16 17\r\nNATS/1.0 503\r\n\r\nx\r\n",
        b"HPUB ORDER.created.a\x0cb 18 19\r\nNATS/1.0\r\na: b\r\n\r\nx\r\n",
        b"HPUB ORDER.created.a 12 13\r\ngarbage!\r\n\r\nx\r\n",
        b"HPUB ORDER.created.a 1 2\r\nxx\r\n",
        b"HPUB ORDER.created.a 0 1\r\nx\r\n",
        b"HPUB ORDER.created.a 18 19\r\nNATS/1.0\r\n\xff: \xff\r\n\r\nx\r\n",
    ],
)
async def test_no_message_of_an_outsider_breaks_the_reading(
    real: JetStreamKeeper, command: bytes
) -> None:
    log = await real.client()
    stream = await trio.open_tcp_stream("127.0.0.1", real.server.port)
    async with stream, log.read(0, ["ORDER.created.>"]) as reader:
        await stream.send_all(b'CONNECT {"verbose":false,"headers":true}\r\n' + command)
        assert payloads(await take(reader, 1)) == [b"x"]
        await log.append("ORDER.created.o1", b"the next")
        assert payloads(await take(reader, 1)) == [b"the next"]


async def test_views_and_snapshots_are_what_ordinary_nats_tools_expect(
    real: JetStreamKeeper,
) -> None:
    log = await real.client()
    await log.put_views({f"o{n}": b"view %d" % n for n in range(20)})
    data = bytes(range(256)) * 4_000
    await log.put_snapshot("order-0", data)
    async with trio_asyncio.open_loop():
        client = await trio_asyncio.aio_as_trio(nats.connect)(real.server.url)
        js = client.jetstream()
        bucket = await trio_asyncio.aio_as_trio(js.key_value)("orders")
        assert (await trio_asyncio.aio_as_trio(bucket.get)("o7")).value == b"view 7"
        objects = await trio_asyncio.aio_as_trio(js.object_store)("snapshots")
        assert (await trio_asyncio.aio_as_trio(objects.get)("order-0")).data == data
        await trio_asyncio.aio_as_trio(bucket.put)("o7", b"theirs")
        await trio_asyncio.aio_as_trio(bucket.delete)("o8")
        await trio_asyncio.aio_as_trio(objects.put)("order-0", b"theirs")
        await trio_asyncio.aio_as_trio(client.close)()
    assert await log.get_view("o7") == b"theirs"
    assert await log.get_view("o8") is None
    assert await log.get_snapshot("order-0") == b"theirs"
