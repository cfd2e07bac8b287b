"""G. Administration: looking, counting, adding, deleting, and reports (S65 to S70)."""

import gc
import time

import pytest
import trio

from supervisors import (
    AlreadyStarted,
    ChildCrashed,
    ChildSpec,
    ChildStarted,
    Counts,
    GaveUp,
    IsDynamic,
    Kind,
    NotDynamic,
    NotFound,
    Restart,
    RestartFailed,
    Restarting,
    RestartScheduled,
    Running,
    ShutdownError,
    State,
    Strategy,
    SupervisorEnded,
    child_supervisor,
)


async def test_s65_which_children_shows_state_kind_since_and_restarts(stage):
    nested = child_supervisor("sub", stage.spec("x"))
    async with stage.running(stage.spec((stage.child("a"), stage.child("b"), nested))) as root:
        await trio.sleep(3)
        await stage.crash("b")
        a, b, sub = root.which_children()
        assert (a.id, a.state, a.kind, a.since, a.restarts) == (
            "a",
            State.RUNNING,
            Kind.WORKER,
            0.0,
            0,
        )
        assert (b.state, b.since, b.restarts) == (State.RESTARTING, 3.0, 1)
        assert (sub.state, sub.kind) == (State.RUNNING, Kind.SUPERVISOR)


async def test_s65_one_snapshot_shows_the_whole_tree(stage):
    inner = child_supervisor("order", stage.spec("order.0 order.1"))
    outer = child_supervisor("actors", stage.spec((inner,)))
    async with stage.running(stage.spec((stage.child("link"), outer))) as root:
        await trio.sleep(2)
        await stage.crash("order.1")
        assert [node.path for node in root.snapshot().walk()] == [
            "/",
            "link",
            "actors",
            "actors/order",
            "actors/order/order.0",
            "actors/order/order.1",
        ]
        node = root.snapshot().find("actors/order/order.1")
        assert (node.state, node.until, node.last_error) == (
            State.RESTARTING,
            2.1,
            "ValueError: order.1",
        )
        assert (node.restarts, node.restarts_in_window, node.intensity) == (1, 1, 10)
        assert root.snapshot().render(2.0) == (
            "/  running  for 2.0 s  one_for_one\n"
            "├─ link  running  for 2.0 s\n"
            "└─ actors  running  for 2.0 s  one_for_one\n"
            "   └─ order  running  for 2.0 s  one_for_one\n"
            "      ├─ order.0  running  for 2.0 s\n"
            "      └─ order.1  backing off 0.1 s  for 0.0 s"
            "  restarts 1 (1/10 in window)  last: ValueError: order.1"
        )


async def test_s65_a_nested_supervisor_is_found_by_its_path(stage):
    inner = child_supervisor("order", stage.spec("order.0"))
    outer = child_supervisor("actors", stage.spec((inner,)))
    async with stage.running(stage.spec((outer,))) as root:
        await root.find("actors/order").stop_child("order.0")
        assert root.snapshot().find("actors/order/order.0").state is State.STOPPED
        with pytest.raises(NotFound):
            root.find("actors/payment")
        with pytest.raises(NotFound):
            root.find("actors/order/order.0")


async def test_s65_a_child_that_made_its_supervisor_give_up_is_shown_as_escalated(stage):
    stage.role("b").cleanup_s = 1.0
    async with stage.running(stage.spec("a b", intensity=0)) as supervisor:
        await stage.crash("a")
        assert supervisor.which_children()[0].state is State.ESCALATED


async def test_s66_count_children_counts_specs_active_supervisors_and_workers(stage):
    nested = child_supervisor("sub", stage.spec("x"))
    async with stage.running(stage.spec((stage.child("a"), stage.child("b"), nested))) as root:
        await root.stop_child("a")
        assert root.count_children() == Counts(specs=3, active=2, supervisors=1, workers=2)
    dynamic = stage.spec(strategy=Strategy.DYNAMIC, template=ChildSpec("w", stage.play))
    async with stage.running(dynamic) as root:
        await root.start_instance("x")
        await root.start_instance("y")
        assert root.count_children() == Counts(specs=1, active=2, supervisors=0, workers=2)


async def test_s67_only_a_child_at_rest_can_be_deleted(stage):
    async with stage.running(stage.spec("a b")) as supervisor:
        with pytest.raises(Running):
            await supervisor.delete_child("a")
        await stage.crash("b")
        with pytest.raises(Restarting):
            await supervisor.delete_child("b")
        with pytest.raises(AlreadyStarted):
            await supervisor.start_child(stage.child("b"))
        with pytest.raises(NotFound):
            await supervisor.delete_child("c")
        await supervisor.stop_child("a")
        await supervisor.delete_child("a")
        assert [child.id for child in supervisor.which_children()] == ["b"]


async def test_s67_a_dynamic_supervisor_refuses_calls_about_specs(stage):
    dynamic = stage.spec(strategy=Strategy.DYNAMIC, template=ChildSpec("w", stage.play))
    async with stage.running(dynamic) as supervisor:
        await supervisor.start_instance("x")
        with pytest.raises(IsDynamic):
            await supervisor.start_child(stage.child("a"))
        with pytest.raises(IsDynamic):
            await supervisor.restart_child("w#1")
        with pytest.raises(IsDynamic):
            await supervisor.delete_child("w#1")
        await supervisor.stop_child("w#1")
        assert supervisor.which_children() == ()
    async with stage.running(stage.spec("a")) as supervisor:
        with pytest.raises(NotDynamic):
            await supervisor.start_instance("x")


async def test_s67_crashing_a_child_on_purpose_counts_as_its_failure(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        supervisor.crash_child("a", error := RuntimeError("injected"))
        await trio.sleep(1)
        assert stage.read() == "+a -a +a"
        assert [report.error for report in stage.heard(ChildCrashed)] == [error]
        with pytest.raises(NotFound):
            supervisor.crash_child("b", error)


async def test_s67_after_a_crash_on_purpose_the_next_end_is_judged_anew(stage):
    spec = stage.spec((stage.child("a", restart=Restart.TRANSIENT),))
    async with stage.running(spec) as supervisor:
        supervisor.crash_child("a", RuntimeError("injected"))
        await trio.sleep(1)
        await stage.end("a")
        assert supervisor.which_children()[0].state is State.UNDEFINED


async def _cost_of(stage, instances):
    async def idle(*, task_status):
        task_status.started()
        await trio.sleep_forever()

    spec = stage.spec(strategy=Strategy.DYNAMIC, template=ChildSpec("w", idle))
    began = time.process_time()
    async with stage.running(spec, on_report=lambda _: None) as supervisor:
        for _ in range(instances):
            await supervisor.start_instance()
        assert supervisor.count_children().active == instances
    return time.process_time() - began


@pytest.mark.slow
async def test_s69_ten_times_the_children_cost_about_ten_times_as_much(stage):
    gc.disable()  # Its passes over so many tasks are not the supervisor's cost.
    try:
        small = min([await _cost_of(stage, 1_000) for _ in range(3)])
        assert await _cost_of(stage, 10_000) < 20 * small  # Quadratic cost would make it a hundred.
    finally:
        gc.enable()


async def test_s70_each_thing_that_happens_is_one_report_with_path_and_time(stage):
    stage.role("b").cleanup_raises = KeyError("cleanup")
    spec = stage.spec((child_supervisor("sub", stage.spec("a b", intensity=1)),), intensity=0)
    async with stage.running(spec):
        stage.role("a").refuse = []
        await stage.crash("a")
        stage.role("a").refuse = [ValueError("no")]
        await trio.sleep(1)
    told = [(type(report), report.path) for report in stage.reports]
    assert told == [
        (ChildStarted, "sub/a"),
        (ChildStarted, "sub/b"),
        (ChildStarted, "sub"),
        (ChildCrashed, "sub/a"),
        (RestartScheduled, "sub/a"),
        (RestartFailed, "sub/a"),
        (GaveUp, "sub"),
        (ShutdownError, "sub/b"),
        (SupervisorEnded, "sub"),
        (ChildCrashed, "sub"),
        (GaveUp, "/"),
        (SupervisorEnded, "/"),
    ]
    assert [report.at for report in stage.reports] == sorted(report.at for report in stage.reports)


async def test_s70_arguments_are_reported_by_shape_so_no_secret_gets_out(stage):
    class Card:
        def __repr__(self):
            raise AssertionError("nobody may ask")

    async def idle(*args, task_status):
        task_status.started()
        await trio.sleep_forever()

    args = ("s3cret", 7, Card(), [1, ["deep", ["er"]]], {"k": "v"}, "more")
    async with stage.running(stage.spec((ChildSpec("a", idle, args=args),))):
        (report,) = stage.heard(ChildStarted)
        assert report.args == "(str[6], 7, Card, list(1, list), ...)"


async def test_s70_a_hook_that_raises_breaks_nothing(stage, caplog):
    def broken(report):
        raise RuntimeError("hook")

    async with stage.running(stage.spec("a"), on_report=broken):
        await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "+a !a +a"
    assert "on_report failed on a ChildStarted" in caplog.text


async def test_s70_a_temporary_child_taken_back_or_stopped_is_forgotten(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        await supervisor.start_child(stage.child("t", restart=Restart.TEMPORARY))
        await supervisor.stop_child("t")
        assert [child.id for child in supervisor.which_children()] == ["a"]
