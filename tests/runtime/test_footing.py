"""What the core stands on, on a real broker: waited for, doubted, left, and known to be gone."""

from typing import Any

import pytest
import trio

from runtime import footing as module
from runtime import jetstream_streams
from runtime.bridge import Address, Bridge
from runtime.footing import Footing
from runtime.jetstream import JetStreamLog, Layout, StreamLostError
from runtime.jetstream_api import Api
from runtime.log import BrokerLostError
from supervisors.errors import leaves

LAYOUT = Layout(retention_s=3600.0, replicas=1, shards={"order": 1})


@pytest.fixture(autouse=True)
def _is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_streams, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(jetstream_streams, "LOOK_TIMEOUT_S", 0.2)


@pytest.fixture
async def bridge(own_nats_server: Any, nursery: trio.Nursery) -> Bridge:
    """Connected by one of two names of the same broker."""
    bridge = Bridge(
        Address([own_nats_server.url, own_nats_server.url.replace("127.0.0.1", "localhost")])
    )
    await nursery.start(bridge.run)
    await bridge.wait_connected()
    return bridge


@pytest.fixture
def footing(bridge: Bridge) -> Footing:
    return Footing(bridge, JetStreamLog(bridge), LAYOUT)


async def loses_the_broker(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    raise BrokerLostError("no answer to an append")


async def run_on(footing: Footing) -> None:
    await footing.run_on(loses_the_broker, task_status=trio.TASK_STATUS_IGNORED)


async def test_a_broker_that_does_not_answer_is_waited_for_with_a_reason(
    footing: Footing, own_nats_server: Any, nursery: trio.Nursery
) -> None:
    own_nats_server.freeze()
    started = trio.Event()

    async def hold() -> None:
        await nursery.start(footing.hold)
        started.set()

    nursery.start_soon(hold)
    await trio.sleep(0.5)
    assert not started.is_set()
    assert footing.reasons == ("JetStream does not serve the streams",)
    own_nats_server.thaw()
    with trio.fail_after(10):
        await started.wait()
    assert not footing.reasons


async def test_who_loses_the_broker_alone_fails_as_soon_as_the_ground_is_known_to_hold(
    footing: Footing, nursery: trio.Nursery
) -> None:
    await nursery.start(footing.hold)
    with trio.fail_after(1), pytest.raises(BaseExceptionGroup) as caught:
        await run_on(footing)
    assert [type(error) for error in leaves(caught.value)] == [BrokerLostError]


async def test_a_doubt_finds_a_lost_stream_at_once(
    footing: Footing, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 60.0)
    caught: list[BaseException] = []

    async def hold(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await footing.hold(task_status=task_status)
        except* StreamLostError as errors:
            caught.extend(leaves(errors))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(hold)
            await Api(bridge).call("STREAM.DELETE.ORDERS")
            with trio.move_on_after(0.3), pytest.raises(BaseExceptionGroup):
                await run_on(footing)
    assert "ORDERS is gone" in str(caught[0])


async def test_a_server_that_is_silent_twice_is_left_for_another(
    footing: Footing, bridge: Bridge, own_nats_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)

    async def hold_until_silent() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(footing.hold)
            own_nats_server.freeze()

    with pytest.raises(BaseExceptionGroup) as caught:
        await hold_until_silent()
    assert "no answer on" in str(next(leaves(caught.value)))
    with trio.fail_after(1):
        await bridge.wait_disconnected()
    own_nats_server.thaw()
    with trio.fail_after(10):
        await bridge.wait_connected()
