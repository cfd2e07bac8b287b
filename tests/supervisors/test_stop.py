"""E. Stop: order, time limits, and nothing left behind (S47 to S56)."""

import gc
import math
import threading
from itertools import product

import pytest
import trio

from supervisors import (
    BRUTAL,
    ChildSpec,
    ChildStopped,
    ChildUnkillable,
    NotFound,
    Restart,
    RestartScheduled,
    Shutdown,
    ShutdownError,
    State,
    SupervisorStopped,
    Unkillable,
    child_supervisor,
)


async def test_s47_children_stop_in_reverse_order_one_at_a_time(stage):
    for child_id in "abc":
        stage.role(child_id).cleanup_s = 1.0
    async with stage.running(stage.spec("a b c")) as supervisor:
        began = trio.current_time()
        await supervisor.stop()
        assert stage.read() == "+a +b +c -c -b -a"
        assert trio.current_time() - began == 3.0


@pytest.mark.parametrize("error", [None, Shutdown("tidied up")])
async def test_s48_a_child_that_ends_itself_after_its_cancellation_has_stopped_normally(
    stage, error
):
    stage.role("a").cleanup_s = 4.0
    stage.role("a").cleanup_raises = error
    async with stage.running(stage.spec("a")) as supervisor:
        await supervisor.stop()
    assert [report.path for report in stage.heard(ChildStopped)] == ["a"]
    assert stage.heard(ShutdownError) == []


async def test_s48_an_error_during_cleanup_is_reported_and_the_stop_goes_on(stage):
    stage.role("b").cleanup_raises = error = KeyError("cleanup")
    async with stage.running(stage.spec("a b c")) as supervisor:
        await supervisor.stop()
    assert stage.read() == "+a +b +c -c -b -a"
    assert [report.error for report in stage.heard(ShutdownError)] == [error]
    assert stage.verdict is None


async def test_s49_a_child_with_infinite_shutdown_may_take_as_long_as_it_likes(stage):
    stage.role("a").cleanup_s = 1e6
    async with stage.running(stage.spec((stage.child("a", shutdown_s=math.inf),))) as supervisor:
        await supervisor.stop()
    assert stage.heard(ChildUnkillable) == []
    assert child_supervisor("s", stage.spec()).shutdown_s == math.inf


async def test_s50_a_brutal_stop_grants_no_time_of_its_own(stage):
    stage.role("a").cleanup_s = 5.5
    async with stage.running(stage.spec((stage.child("a", shutdown_s=BRUTAL),))) as supervisor:
        await supervisor.stop()
    (report,) = stage.heard(ChildUnkillable)
    assert report.at == 5.0  # What any cancelled child is granted to be gone, and nothing on top.


async def test_s50_a_brutally_stopped_child_that_obeys_is_gone_at_once(stage):
    async with stage.running(stage.spec((stage.child("a", shutdown_s=BRUTAL),))) as supervisor:
        await supervisor.stop()
        assert trio.current_time() == 0.0
    assert stage.read() == "+a -a"


@pytest.mark.parametrize(
    ("restart", "error"),
    list(product(Restart, [None, Shutdown("done"), ValueError("bug"), KeyError("bug")])),
)
async def test_s51_a_child_that_ends_by_itself_during_the_stop_is_not_restarted(
    stage, restart, error
):
    stage.role("b").cleanup_s = 1.0
    spec = stage.spec((stage.child("a", restart=restart), stage.child("b")), intensity=0)
    async with stage.running(spec) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.stop)
        await trio.sleep(0.5)
        await stage.end("a", error)
    assert stage.read() == "+a +b !a -b"
    assert stage.heard(RestartScheduled) == []
    assert stage.verdict is None


async def test_s52_an_unkillable_child_is_shown_with_its_stack_and_the_rest_stops(stage):
    stage.role("b").cleanup_s = 100.0
    async with stage.running(stage.spec("a b c")) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.stop)
        await trio.sleep(10.5)
        assert supervisor.snapshot().find("b").state is State.UNKILLABLE
        assert stage.read() == "+a +b +c -c -a"
    (report,) = stage.heard(ChildUnkillable)
    assert (report.path, report.at) == ("b", 10.0)
    assert "await trio.sleep(role.cleanup_s)" in report.stack
    assert isinstance(stage.verdict, Unkillable)


async def test_s52_an_unkillable_leaf_makes_every_level_stop_its_rest(stage):
    stage.role("x").cleanup_s = 100.0
    nested = child_supervisor("sub", stage.spec("w x y"))
    spec = stage.spec((stage.child("a"), nested, stage.child("b")))
    async with stage.running(spec) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.stop)
        await trio.sleep(10.5)
        assert stage.read() == "+a +w +x +y +b -b -y -w -a"
        assert supervisor.snapshot().find("sub").state is State.UNKILLABLE


async def test_s52_a_lost_child_that_ends_after_all_is_not_restarted(stage):
    stage.role("a").cleanup_s, stage.role("b").cleanup_s = 4.0, 12.0
    spec = stage.spec((stage.child("a"), stage.child("b", heartbeat_s=1.0)))
    async with stage.running(spec):
        await trio.sleep(20.0)
    assert [report.at for report in stage.heard(ChildUnkillable)] == [13.0]
    assert stage.heard(RestartScheduled) == []
    assert isinstance(stage.verdict, Unkillable)


async def test_s53_a_second_stop_waits_for_the_first(stage):
    stage.role("a").cleanup_s = 2.0
    async with stage.running(stage.spec("a")) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop)
            await trio.sleep(1.0)
            await supervisor.stop()
            assert trio.current_time() == 2.0
        await supervisor.stop()
    assert stage.read() == "+a -a"


async def test_s53_a_second_stop_grants_no_more_time(stage):
    stage.role("b").cleanup_s = 100.0
    async with stage.running(stage.spec("a b")) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.stop)
        await trio.sleep(9.0)
        nursery.start_soon(supervisor.stop)
    (report,) = stage.heard(ChildUnkillable)
    assert report.at == 10.0


async def test_s53_stopping_a_stopped_child_is_fine_and_an_unknown_one_is_not_found(stage):
    stage.role("a").cleanup_s = 2.0
    async with stage.running(stage.spec("a")) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop_child, "a")
            nursery.start_soon(supervisor.stop_child, "a")
        await supervisor.stop_child("a")
        assert stage.read() == "+a -a"
        with pytest.raises(NotFound):
            await supervisor.stop_child("b")


async def test_s53_a_stopped_supervisor_refuses_to_be_administered(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        await supervisor.stop()
        with pytest.raises(SupervisorStopped):
            await supervisor.start_child(stage.child("b"))
        with pytest.raises(SupervisorStopped):
            await supervisor.restart_child("a")


async def test_s54_cancelling_the_supervisor_stops_in_order_and_within_the_times(stage):
    for child_id in "abc":
        stage.role(child_id).cleanup_s = 1.0
    with trio.move_on_after(10.0) as scope:
        await stage.supervise(stage.spec("a b c"))
    assert scope.cancelled_caught
    assert stage.read() == "+a +b +c -c -b -a"
    assert trio.current_time() == 13.0


async def test_s55_a_cancelled_child_may_return_instead(stage):
    async def returns(*, task_status):
        task_status.started()
        with trio.CancelScope() as inner:
            await trio.sleep_forever()
        assert not inner.cancelled_caught

    async def swallows(*, task_status):
        task_status.started()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return

    children = (ChildSpec("a", returns), ChildSpec("b", swallows))
    async with stage.running(stage.spec(children)) as supervisor:
        await supervisor.stop()
    assert len(stage.heard(ChildStopped)) == 2


async def test_s55_what_comes_together_with_the_cancellation_is_a_shutdown_error(stage):
    async def crashes_in_cleanup(*, task_status):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                raise error

    error = KeyError("cleanup")
    async with stage.running(stage.spec((ChildSpec("a", crashes_in_cleanup),))) as supervisor:
        await supervisor.stop()
    (report,) = stage.heard(ShutdownError)
    assert list(report.error.exceptions) == [error]


async def test_s56_after_a_busy_life_no_task_thread_or_object_is_left(stage):
    tasks = trio.lowlevel.current_statistics().tasks_living
    threads = threading.active_count()

    async def busy():
        nested = child_supervisor("sub", stage.spec("x y", intensity=1))
        async with stage.running(stage.spec((stage.child("a"), nested))) as supervisor:
            for _ in range(5):
                await stage.crash("x")
                await trio.sleep(1)
                await supervisor.start_child(stage.child("extra", restart=Restart.TEMPORARY))
                await supervisor.stop_child("extra")
        stage.reports.clear()
        stage.diary.clear()

    await busy()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(5):
        await busy()
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert threading.active_count() == threads


async def test_s56_a_child_that_stops_its_own_supervisor_does_not_hang_it(stage):
    opened = []

    async def ends_it(*, task_status):
        task_status.started()
        await opened[0].stop()

    spec = stage.spec((stage.child("a"), ChildSpec("b", ends_it)))
    with trio.fail_after(60):
        await stage.supervise(spec, on_open=opened.append)
    assert stage.read() == "+a -a"


async def test_s76_hurrying_shortens_the_times_of_those_already_stopping(stage):
    stage.role("x").cleanup_s = 1000.0
    nested = child_supervisor("sub", stage.spec((stage.child("x", shutdown_s=500.0),)))
    async with stage.running(stage.spec((nested,))) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.stop)
        await trio.sleep(10.0)
        supervisor.hurry(1.0)
        await trio.sleep(20.0)
    (report,) = stage.heard(ChildUnkillable)
    assert report.at == 16.0
