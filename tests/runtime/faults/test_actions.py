"""Each action does what it says, is let go when its time is over, and leaves a trace of itself."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
import trio
import trio.lowlevel
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from runtime.config import load
from runtime.faults import Effect, Faults, Hands, InjectedFaultError, MistakenFaultError
from runtime.faults.fault import Occasion
from runtime.faults.injector import ARMED_MAX, NoSuchFaultError, TooManyFaultsError
from runtime.faults.metrics import FaultMetrics
from runtime.faults.points import AFTER_LOG_APPEND, BEFORE_REACT
from runtime.recall import Address
from runtime.testing import Stage
from runtime.tracing import Tracer
from runtime.tracing_sdk import start_sdk
from supervisors import ChildCrashed, ChildUnkillable

HERE = Occasion(BEFORE_REACT, "order", 1, (("OrderOpened", "o1"),))


class Body:
    """What a process lets faults act with, and what they did to it."""

    def __init__(self, broker_pid: int | None = None) -> None:
        self.crashed: list[tuple[Address, str]] = []
        self.exits: list[int] = []
        self.hands = Hands(
            {"order": 2},
            lambda address, error: self.crashed.append((address, str(error))),
            lambda: broker_pid,
            self.exits.append,
        )


@pytest.fixture
def body() -> Body:
    return Body()


@pytest.fixture
def loose(body: Body) -> Faults:
    """Faults of a process that is not there: what they do is asked for by the test alone."""
    return Faults(body.hands)


async def test_raise_raises_what_names_its_fault(loose: Faults) -> None:
    loose.inject("shard.before-react", "raise")
    with pytest.raises(InjectedFaultError, match=r"shard\.before-react \(fault f1\)"):
        await loose.reach(HERE)
    assert await loose.reach(HERE) is Effect.NONE, "once, as it was asked for"


async def test_delay_takes_its_time(loose: Faults, autojump_clock: Any) -> None:
    loose.inject("shard.before-react", "delay", duration_s=7.0)
    before_s = trio.current_time()
    await loose.reach(HERE)
    assert trio.current_time() - before_s == pytest.approx(7)


async def test_a_hang_ends_with_the_time_of_its_fault(loose: Faults, autojump_clock: Any) -> None:
    loose.inject("shard.before-react", "hang", for_s=30.0)
    await loose.reach(HERE)
    assert trio.current_time() == pytest.approx(30)


async def test_a_hang_ends_when_its_fault_is_cleared_or_its_task_cancelled(
    loose: Faults, autojump_clock: Any
) -> None:
    armed = loose.inject("shard.before-react", "hang", times=2)
    with trio.move_on_after(5) as patience:
        await loose.reach(HERE)
    assert patience.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loose.reach, HERE)
        await trio.sleep(1)
        loose.clear(armed.id)
    assert trio.current_time() == pytest.approx(6)


async def test_a_crash_fails_the_shard_that_passes_and_goes_no_further(
    loose: Faults, body: Body, autojump_clock: Any
) -> None:
    loose.inject("shard.before-react", "crash")
    with trio.move_on_after(5) as supervisor:
        await loose.reach(HERE)
    assert supervisor.cancelled_caught
    assert body.crashed == [(Address("order", 1), "injected at shard.before-react (fault f1)")]


async def test_a_crash_while_somebody_else_acts_lets_him_go_on(loose: Faults, body: Body) -> None:
    loose.inject("log.after-append", "crash")
    assert await loose.reach(Occasion(AFTER_LOG_APPEND, "order", 0)) is Effect.NONE
    assert [address for address, _ in body.crashed] == [Address("order", 0)]


async def test_block_stops_the_loop(loose: Faults) -> None:
    loose.inject("shard.before-react", "block", duration_s=0.05)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        started_s = time.monotonic()
        await loose.reach(HERE)
        assert time.monotonic() - started_s >= 0.05
        assert turns == 0
        nursery.cancel_scope.cancel()


async def test_exit_ends_the_process_with_its_code(
    loose: Faults, body: Body, autojump_clock: Any
) -> None:
    loose.inject("shard.before-react", "exit", code=3)
    with trio.move_on_after(1):
        await loose.reach(HERE)
    assert body.exits == [3]


@pytest.fixture
def sleepers() -> Iterator[tuple[int, int]]:
    """Two processes that only wait, in place of brokers."""
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as other:
        yield one.pid, other.pid
        one.kill()
        other.kill()


@pytest.fixture
def broker(sleepers: tuple[int, int]) -> int:
    return sleepers[0]


def wait(pid: int, options: int = 0) -> int:
    """What has become of a process of ours."""
    return os.waitpid(pid, options)[1]


async def test_kill_broker_kills_it(broker: int) -> None:
    faults = Faults(Body(broker).hands)
    faults.inject("shard.before-react", "kill-broker")
    await faults.reach(HERE)
    assert os.WTERMSIG(wait(broker)) == signal.SIGKILL


async def test_pause_broker_stops_it_and_wakes_it_again(broker: int) -> None:
    faults = Faults(Body(broker).hands)
    faults.inject("shard.before-react", "pause-broker", duration_s=0.02)
    await faults.reach(HERE)
    assert os.WIFSTOPPED(wait(broker, os.WUNTRACED))
    assert os.WIFCONTINUED(wait(broker, os.WCONTINUED))


async def test_only_the_broker_that_was_paused_is_woken(sleepers: tuple[int, int]) -> None:
    paused, successor = sleepers
    pids = iter(sleepers)
    faults = Faults(replace(Body().hands, broker_pid=lambda: next(pids)))
    faults.inject("shard.before-react", "pause-broker", duration_s=0.01)
    os.kill(successor, signal.SIGSTOP)
    assert os.WIFSTOPPED(wait(successor, os.WUNTRACED))
    await faults.reach(HERE)
    [wake] = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    wake.join()
    assert wait(successor, os.WCONTINUED | os.WNOHANG) == 0
    assert wait(paused, os.WCONTINUED | os.WNOHANG) == 0


async def test_a_broker_that_has_just_gone_is_left_alone(loose: Faults) -> None:
    loose.inject("shard.before-react", "kill-broker")
    loose.inject("shard.before-react", "pause-broker", duration_s=0.01)
    assert await loose.reach(HERE) is Effect.NONE


async def test_several_faults_at_one_point_act_in_turn(loose: Faults, autojump_clock: Any) -> None:
    loose.inject("shard.before-react", "delay", duration_s=2.0)
    loose.inject("shard.before-react", "raise")
    with pytest.raises(InjectedFaultError):
        await loose.reach(HERE)
    assert trio.current_time() == pytest.approx(2)


# --- on the stage ---


async def test_swallow_ends_as_unkillable(
    stage: Stage, faults: Faults, shop: Any, autojump_clock: Any
) -> None:
    faults.inject("shard.before-react", "swallow", actor="order", fact="OrderCreated")
    await shop.confirm("o1")  # By the next process.
    assert stage.exits == [70]
    assert any(isinstance(report, ChildUnkillable) for report in stage.reports)


async def test_a_crash_is_seen_by_the_supervisor_as_the_injected_exception(
    stage: Stage, faults: Faults, shop: Any, autojump_clock: Any
) -> None:
    faults.inject("shard.after-append", "crash", actor="inventory", fact="StockReserved")
    await shop.confirm("o1")
    [crash] = [report for report in stage.reports if isinstance(report, ChildCrashed)]
    assert crash.path == "actors/inventory.0"
    assert isinstance(crash.error, InjectedFaultError)


# --- what is armed ---


async def test_a_fault_is_over_after_its_time(loose: Faults, autojump_clock: Any) -> None:
    armed = loose.inject("shard.before-react", "raise", for_s=10.0)
    assert loose.active() == [armed]
    await trio.sleep(10)
    assert await loose.reach(HERE) is Effect.NONE
    assert loose.active() == []
    assert not loose.wants(BEFORE_REACT)
    with pytest.raises(NoSuchFaultError):
        loose.clear(armed.id)


async def test_a_mistaken_fault_is_not_armed(loose: Faults) -> None:
    with pytest.raises(MistakenFaultError, match="there is no 'orders'") as refused:
        loose.inject("shard.before-react", "drop", actor="orders")
    assert [mistake.field for mistake in refused.value.mistakes] == ["action", "actor"]
    assert loose.active() == []


async def test_only_so_many_are_armed_at_a_time(loose: Faults) -> None:
    for _ in range(ARMED_MAX):
        loose.inject("shard.before-react", "raise")
    with pytest.raises(TooManyFaultsError):
        loose.inject("shard.before-react", "raise")
    loose.clear_all()
    assert loose.active() == []


async def test_arming_firing_and_clearing_are_logged_traced_and_counted(body: Body) -> None:
    exporter = InMemorySpanExporter()
    tracer = Tracer(start_sdk(load({}), exporter))
    faults = Faults(body.hands, tracer)
    with structlog.testing.capture_logs() as lines:
        armed = faults.inject("log.after-append", "drop", order="o1")
        about = (("OrderOpened", "o1"),)
        assert await faults.reach(Occasion(AFTER_LOG_APPEND, "order", 1, about)) is Effect.DROP
        shown = shown_metrics(faults)
        faults.clear(armed.id)
    tracer.close()
    assert [line["event"] for line in lines] == ["fault_armed", "fault_fired", "fault_cleared"]
    fired = lines[1]
    assert (fired["id"], fired["at"], fired["fact"], fired["fired"]) == (
        "f1",
        "order.1",
        "OrderOpened",
        1,
    )
    [span] = exporter.get_finished_spans()
    assert span.name == "fault fired"
    assert span.attributes is not None
    assert span.attributes["fault.point"] == "log.after-append"
    assert span.attributes["fault.order_id"] == "o1"
    where = '{action="drop",point="log.after-append"} 1.0'
    assert f"orders_faults_armed{where}" in shown
    assert f"orders_faults_fired_total{where}" in shown
    assert "orders_faults_armed{" not in shown_metrics(faults)


def shown_metrics(faults: Faults) -> str:
    registry = CollectorRegistry()
    registry.register(FaultMetrics(faults))
    return generate_latest(registry).decode()
