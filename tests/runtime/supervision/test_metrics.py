"""What a scrape says of the supervision tree."""

from pathlib import Path

import trio
from prometheus_client import CollectorRegistry, generate_latest
from trio.testing import MockClock

from runtime.config import load
from runtime.metrics import Metrics
from runtime.system import System
from supervisors import Backoff, ChildSpec, ChildStatus, Restart, SupervisorSpec, supervise

NO_FILE = Path("there-is-no-such-file")
ONE_SECOND = Backoff(1.0, 1.0, jitter=0.0)


async def fails(error: Exception | None, *, task_status: ChildStatus) -> None:
    task_status.started()
    await trio.sleep(10)
    if error is not None:
        raise error


def scrape(metrics: Metrics) -> list[str]:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode().splitlines()


async def test_s68_restarts_by_reason_states_and_backoffs_are_metrics(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    system = System(load({}, NO_FILE))
    spec = SupervisorSpec(
        (
            ChildSpec("bad", fails, (ExceptionGroup("g", [ValueError("a secret")]),)),
            ChildSpec("short", fails, (None,)),
            ChildSpec("job", fails, (None,), restart=Restart.TRANSIENT),
        ),
        intensity=10,
        period_s=1000.0,
        backoff=ONE_SECOND,
    )

    async def run() -> None:
        await supervise(spec, on_report=system.metrics.count, on_open=system.adopt)

    nursery.start_soon(run)
    await trio.sleep(21.5)
    lines = scrape(system.metrics)
    assert 'orders_restarts_total{child="bad",reason="ValueError"} 2.0' in lines
    assert 'orders_restarts_total{child="short",reason="ended"} 2.0' in lines
    assert 'orders_crashes_total{child="bad"} 2.0' in lines
    assert 'orders_child_state{child="bad",state="restarting"} 1.0' in lines
    assert 'orders_child_state{child="/",state="running"} 1.0' in lines
    assert 'orders_child_state{child="job",state="undefined"} 1.0' in lines
    assert 'orders_backoff_seconds{child="bad"} 0.5' in lines
    assert 'orders_backoff_seconds{child="job"} 0.0' in lines
    assert [
        line for line in lines if "secret" in line or 'crashes_total{child="short"' in line
    ] == []
    await trio.sleep(1)
    assert 'orders_child_state{child="bad",state="restarting"} 1.0' not in scrape(system.metrics)
    nursery.cancel_scope.cancel()


def test_before_there_is_a_tree_a_scrape_works() -> None:
    lines = scrape(System(load({}, NO_FILE)).metrics)
    assert "orders_broker_connected 0.0" in lines
