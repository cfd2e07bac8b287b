"""Streams that are lost, replaced or altered are told from those of a first start, and never made anew in silence."""

from contextlib import nullcontext
from typing import Any

import pytest
import trio

from runtime import jetstream_streams
from runtime.bridge import Address, Bridge
from runtime.jetstream import JetStreamLog, Layout, StreamLostError, StreamMismatchError
from runtime.jetstream_api import Api
from runtime.log import BrokerLostError

LAYOUT = Layout(retention_s=3600.0, replicas=1, shards={"order": 2})
NAMES = ("ORDERS", "KV_orders", "OBJ_snapshots")


@pytest.fixture(autouse=True)
def _looks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_streams, "LOOK_AGAIN_S", 0.001)


@pytest.fixture
async def api(nats_server: Any, nursery: trio.Nursery) -> Api:
    """A broker without any of our streams."""
    bridge = Bridge(Address([nats_server.url]))
    await nursery.start(bridge.run)
    await bridge.wait_connected()
    api = Api(bridge)
    for name in NAMES:
        await api.try_call(f"STREAM.DELETE.{name}")
    return api


def new_log(api: Api) -> JetStreamLog:
    """The log as a process sees it that has just started."""
    return JetStreamLog(api.bridge)


async def config_of(api: Api, name: str) -> dict[str, Any]:
    return dict((await api.call(f"STREAM.INFO.{name}"))["config"])


async def recreate(api: Api, name: str, **changes: Any) -> None:
    config = await config_of(api, name)
    await api.call(f"STREAM.DELETE.{name}")
    await api.call(f"STREAM.CREATE.{name}", config | changes)


async def test_a_first_start_makes_the_streams_and_the_next_finds_them(api: Api) -> None:
    await new_log(api).prepare(LAYOUT)
    ids = {(await config_of(api, name))["metadata"]["orders.log"] for name in NAMES}
    assert len(ids) == 1
    await new_log(api).prepare(LAYOUT)


@pytest.mark.parametrize("made", [1, 2])
async def test_a_first_start_that_was_cut_short_is_finished_by_the_next(
    api: Api, made: int
) -> None:
    await new_log(api).prepare(LAYOUT)
    for name in jetstream_streams.NAMES[made:]:
        await api.call(f"STREAM.DELETE.{name}")
    log = new_log(api)
    await log.prepare(LAYOUT)
    await log.append("ORDER.journal.order.0", b"")
    await new_log(api).prepare(LAYOUT)


async def test_a_log_that_is_gone_from_among_its_companions_is_not_made_anew(api: Api) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    await log.put_views({"o1": b"{}"})
    await api.call("STREAM.DELETE.ORDERS")
    for accept_loss in (False, True):
        with pytest.raises(StreamLostError, match="restore it from a backup"):
            await new_log(api).prepare(LAYOUT, accept_loss=accept_loss)
    assert (await api.try_call("STREAM.INFO.ORDERS"))[0] is not None


@pytest.mark.parametrize("name", ["KV_orders", "OBJ_snapshots"])
async def test_a_companion_that_is_gone_is_made_anew_only_on_request(api: Api, name: str) -> None:
    await new_log(api).prepare(LAYOUT)
    await api.call(f"STREAM.DELETE.{name}")
    with pytest.raises(StreamLostError, match=rf"{name} is gone.*ACCEPT_LOSS=on"):
        await new_log(api).prepare(LAYOUT)
    await new_log(api).prepare(LAYOUT, accept_loss=True)
    await new_log(api).prepare(LAYOUT)


async def test_an_empty_log_beside_views_of_orders_was_made_anew_by_somebody(api: Api) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    await log.claim_views()
    await new_log(api).prepare(LAYOUT)  # A claim alone may come before the first record.
    await log.put_views({"o1": b"{}"})
    await recreate(api, "ORDERS")
    with pytest.raises(StreamLostError, match="ORDERS is empty"):
        await new_log(api).prepare(LAYOUT)


async def test_streams_of_different_logs_are_not_taken_for_one(api: Api) -> None:
    await new_log(api).prepare(LAYOUT)
    await recreate(api, "KV_orders", metadata={"orders.log": "another"})
    with pytest.raises(StreamLostError, match=r"KV_orders belongs to another log \(another"):
        await new_log(api).prepare(LAYOUT)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("ORDERS", {"metadata": {}}, "ORDERS was not made by this program"),
        ("ORDERS", {"deny_purge": False}, "deny_purge is False, not True"),
        ("ORDERS", {"max_msgs_per_subject": 7}, "max_msgs_per_subject is 7"),
        ("ORDERS", {"storage": "memory"}, "storage is 'memory', not 'file'"),
        ("KV_orders", {"discard": "old"}, "KV_orders is not as configured: discard is 'old'"),
        ("OBJ_snapshots", {"max_age": 0}, "OBJ_snapshots is not as configured: max_age is 0"),
    ],
)
async def test_a_stream_of_another_shape_is_refused_at_a_start_and_while_we_run(
    api: Api, name: str, changes: dict[str, Any], reason: str
) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    await log.verify()
    await recreate(api, name, **changes)
    with pytest.raises(StreamMismatchError, match=reason):
        await new_log(api).prepare(LAYOUT)
    with pytest.raises(StreamMismatchError, match=name):
        await log.verify()


@pytest.mark.parametrize("name", NAMES)
async def test_a_process_that_has_prepared_them_notices_a_loss_and_makes_nothing_anew(
    api: Api, name: str
) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    await api.call(f"STREAM.DELETE.{name}")
    for look in (log.verify(), log.prepare(LAYOUT, accept_loss=True)):
        with pytest.raises(StreamLostError, match=f"{name} is gone"):
            await look
    assert (await api.try_call(f"STREAM.INFO.{name}"))[0] is not None


async def test_all_streams_deleted_under_way_are_not_made_anew_by_a_new_connection(
    api: Api,
) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    for name in NAMES:
        await api.call(f"STREAM.DELETE.{name}")
    with pytest.raises(StreamLostError, match="OBJ_snapshots and KV_orders and ORDERS is gone"):
        await log.prepare(LAYOUT)


@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_made_anew_with_its_own_configuration_is_noticed_while_we_run(
    api: Api, name: str
) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    await log.verify()
    await recreate(api, name)
    with pytest.raises(StreamLostError, match=f"stream {name} was replaced under way"):
        await log.verify()


async def test_no_tool_can_take_records_out_of_the_log(api: Api) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    await log.append("ORDER.journal.order.0", b"")
    for operation, body in (("STREAM.PURGE.ORDERS", {}), ("STREAM.MSG.DELETE.ORDERS", {"seq": 1})):
        error, _ = await api.try_call(operation, body)
        assert error is not None, operation
    assert await log.last("ORDER.journal.order.0") is not None


@pytest.mark.parametrize("replicas", [1, 3])
async def test_the_newest_of_a_subject_is_the_same_from_any_replica_and_from_the_leader(
    api: Api, replicas: int
) -> None:
    log = new_log(api)
    await log.prepare(LAYOUT)
    headers = {"traceparent": "00-ab-cd-01"}
    seq = await log.append("ORDER.created.o1", b"\x00\xff", headers=headers)
    log._api.has_replicas = replicas > 1
    found = await log.last("ORDER.created.o1")
    assert found is not None
    assert (found.seq, found.payload, found.headers) == (seq, b"\x00\xff", headers)
    async with log.read(0, ["ORDER.>"]) as reader:
        assert list(await reader.take()) == [found]
    assert await log.last("ORDER.created.o2") is None
    assert await log.get_view("o1") is None
    snapshot = bytes(range(256)) * 6_000
    await log.put_snapshot("order-0", b"old")
    await log.put_snapshot("order-0", snapshot)
    assert await log.get_snapshot("order-0") == snapshot
    assert await log.get_snapshot("order-1") is None


@pytest.mark.parametrize(
    ("followers", "serves"),
    [
        ([], True),  # One server alone.
        ([{"active": 900_000_000}, {"active": 1}], True),
        ([{"active": 60_000_000_000}, {"active": 900_000_000}], True),
        ([{"active": 60_000_000_000}, {"active": 60_000_000_000}], False),
        ([{"active": 1, "offline": True}, {"active": 60_000_000_000}], False),
        ([{"active": 1}, {"active": 1}, {"offline": True}, {"offline": True}], True),
        ([{"active": 1}, {"offline": True}, {"offline": True}, {"offline": True}], False),
    ],
)
def test_a_leader_without_a_majority_serves_nobody(
    followers: list[dict[str, Any]], serves: bool
) -> None:
    with nullcontext() if serves else pytest.raises(BrokerLostError, match="lost its majority"):
        jetstream_streams.check_majority("ORDERS", {"replicas": followers})
