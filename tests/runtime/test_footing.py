"""What the core stands on, on a real broker: waited for, doubted, left, and known to be gone."""

from pathlib import Path
from typing import Any

import pytest
import trio

from messages.record import RecordError
from runtime import footing as module
from runtime import jetstream_streams
from runtime.bridge import Address, Bridge
from runtime.config import load
from runtime.footing import Footing
from runtime.gaps import GapError
from runtime.jetstream import JetStreamLog, Layout, StreamLostError
from runtime.jetstream_api import Api
from runtime.log import BrokerLostError, FencedError, LogError, RefusedError
from runtime.system import System
from supervisors import ChildStarted, Report, StartTimeout, supervise
from supervisors.errors import leaves

LAYOUT = Layout(retention_s=3600.0, replicas=1, shards={"order": 1})


@pytest.fixture(autouse=True)
def _is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_MIN_S", 0.01)
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


async def run_on(footing: Footing, trouble: type[LogError] = BrokerLostError) -> None:
    """Let somebody run there who fails as soon as he has started."""

    async def fails(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise trouble("an append failed")

    await footing.run_on(fails, task_status=trio.TASK_STATUS_IGNORED)


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


@pytest.mark.parametrize("trouble", [BrokerLostError, FencedError])
async def test_a_doubt_finds_a_lost_stream_at_once_and_before_anybody_begins_anew_in_it(
    footing: Footing,
    bridge: Bridge,
    monkeypatch: pytest.MonkeyPatch,
    trouble: type[LogError],
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 60.0)
    caught: list[BaseException] = []

    async def hold(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await footing.hold(task_status=task_status)
        except* StreamLostError as errors:
            caught.extend(leaves(errors))
            nursery.cancel_scope.cancel()  # As the supervisor does with whoever stands there.

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(hold)
            await Api(bridge).call("STREAM.DELETE.ORDERS")
            await run_on(footing, trouble)
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


@pytest.mark.parametrize("refusal", [BrokerLostError, FencedError, RefusedError])
async def test_who_is_refused_by_the_broker_before_it_has_started_tries_again_and_fails_nobody(
    footing: Footing, nursery: trio.Nursery, refusal: type[LogError]
) -> None:
    await nursery.start(footing.hold)
    tries: list[int] = []

    async def starts_at_the_third_try(*, task_status: trio.TaskStatus[None]) -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise refusal("not now")
        task_status.started()
        await trio.sleep_forever()

    with trio.fail_after(5):
        await nursery.start(footing.run_on, starts_at_the_third_try)
    assert len(tries) == 3


@pytest.mark.parametrize("fault", [RecordError, GapError])
async def test_what_is_not_the_brokers_doing_fails_a_start_at_once(
    footing: Footing, nursery: trio.Nursery, fault: type[Exception]
) -> None:
    await nursery.start(footing.hold)

    async def fails(*, task_status: trio.TaskStatus[None]) -> None:
        raise fault("here is what is wrong")

    with trio.fail_after(1), pytest.raises(fault):
        await footing.run_on(fails, task_status=trio.TASK_STATUS_IGNORED)


async def test_a_try_that_hangs_is_a_failure_and_one_that_has_started_may_last(
    footing: Footing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_S", 0.05)

    async def hangs(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    async def lasts(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(0.2)

    with trio.fail_after(5):
        with pytest.raises(StartTimeout):
            await footing.run_on(hangs, task_status=trio.TASK_STATUS_IGNORED)
        await footing.run_on(lasts, task_status=trio.TASK_STATUS_IGNORED)


async def test_an_instance_whose_first_appends_and_reads_are_lost_starts_all_the_same(
    own_nats_server: Any, nursery: trio.Nursery
) -> None:
    environ = {"FAULTS": "on", "NATS_URL": own_nats_server.url, "ORDER_SHARDS": "1"}
    system = System(load(environ, Path("there-is-no-such-file")))
    faults = system.injector
    assert faults is not None
    lost = [
        faults.inject("log.before-append", "drop", actor="order", times=2),
        faults.inject("log.after-append", "drop", actor="inventory", times=2),
        faults.inject("log.before-take", "drop", times=1),
    ]
    with trio.fail_after(20):
        await nursery.start(open_system, system)
    assert all(one.standing.fired for one in lost)
    assert system.unready() == ()


async def open_system(system: System, *, task_status: trio.TaskStatus[None]) -> None:
    def tell(report: Report) -> None:
        if isinstance(report, ChildStarted) and report.path == "door":
            task_status.started()

    await supervise(system.spec(with_http=False), on_report=tell, on_open=system.adopt)
