"""C. Strategies: who is restarted together, and in which order (S21 to S30)."""

from random import Random

import pytest
import trio
from trio.testing import MockClock

from supervisors import (
    IGNORE,
    ChildCrashed,
    ChildSpec,
    Restart,
    RestartFailed,
    RestartScheduled,
    ShutdownError,
    State,
    Strategy,
    child_supervisor,
)

ALL, REST = Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE


async def test_s21_one_for_one_leaves_the_siblings_alone(stage):
    async with stage.running(stage.spec("a b c")):
        await stage.crash("b")
        await trio.sleep(1)
        assert stage.read() == "+a +b +c !b +b"


async def test_s22_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order(stage):
    async with stage.running(stage.spec("a b c", strategy=ALL)):
        await stage.crash("b")
        await trio.sleep(1)
        assert stage.read() == "+a +b +c !b -c -a +a +b +c"


async def test_s22_one_for_all_stops_and_drops_temporary_siblings(stage):
    children = (stage.child("a"), stage.child("t", restart=Restart.TEMPORARY), stage.child("c"))
    async with stage.running(stage.spec(children, strategy=ALL)) as supervisor:
        await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "+a +t +c !a -c -t +a +c"
        assert [child.id for child in supervisor.which_children()] == ["a", "c"]


async def test_s22_one_for_all_starts_a_finished_sibling_again_but_not_one_stopped_by_hand(stage):
    children = (stage.child("a"), stage.child("t", restart=Restart.TRANSIENT), stage.child("c"))
    async with stage.running(stage.spec(children, strategy=ALL)) as supervisor:
        await stage.end("t")
        await supervisor.stop_child("c")
        stage.read()
        await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "!a +a +t"


async def test_s22_siblings_stop_one_at_a_time(stage):
    stage.role("c").cleanup_s = 2.0
    async with stage.running(stage.spec("a b c", strategy=ALL)):
        await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "+a +b +c !a"
        await trio.sleep(2)
        assert stage.read() == "-c -b +a +b +c"


async def test_s23_rest_for_one_restarts_the_later_ones_only(stage):
    async with stage.running(stage.spec("a b c d", strategy=REST)):
        await stage.crash("b")
        await trio.sleep(1)
        assert stage.read() == "+a +b +c +d !b -d -c +b +c +d"


async def test_s24_one_for_all_begins_anew_when_another_child_does_not_start(stage):
    async with stage.running(stage.spec("a b c", strategy=ALL)) as supervisor:
        stage.role("b").refuse = [ValueError("not yet")]
        await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "+a +b +c !a -c -b +a -a +a +b +c"
        assert len(stage.heard(RestartFailed)) == 1
        counted = [child.restarts_in_window for child in supervisor.snapshot().children]
        assert counted == [1, 1, 0]


async def test_s25_rest_for_one_goes_on_from_the_child_that_did_not_start(stage):
    async with stage.running(stage.spec("a b c", strategy=REST)) as supervisor:
        stage.role("b").refuse = [ValueError("not yet")]
        await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "+a +b +c !a -c -b +a +b +c"
        counted = [child.restarts_in_window for child in supervisor.snapshot().children]
        assert counted == [1, 1, 0]


async def test_s26_a_sibling_that_crashes_on_its_way_down_is_reported_and_not_counted(stage):
    stage.role("c").cleanup_raises = KeyError("cleanup")
    async with stage.running(stage.spec("a b c", strategy=ALL, intensity=1)):
        await stage.crash("a")
        stage.role("c").cleanup_raises = None
        await trio.sleep(1)
        assert [report.path for report in stage.heard(ShutdownError)] == ["c"]
        assert len(stage.heard(RestartScheduled)) == 1
        assert stage.read() == "+a +b +c !a -c -b +a +b +c"


async def test_s26_a_sibling_that_crashes_while_it_waits_to_be_stopped_counts_no_more(stage):
    stage.role("c").cleanup_s = 2.0
    async with stage.running(stage.spec("a b c", strategy=ALL, intensity=1)):
        await stage.crash("a")
        await stage.crash("b")
        await trio.sleep(3)
        assert stage.read() == "+a +b +c !a !b -c +a +b +c"
        assert len(stage.heard(RestartScheduled)) == 1


async def test_s26_a_sibling_being_stopped_by_hand_stays_stopped_after_the_restart(stage):
    stage.role("c").cleanup_s = 2.0
    async with stage.running(stage.spec("a b c", strategy=ALL)) as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.stop_child, "c")
            await trio.sleep(1)
            await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "+a +b +c !a -c -b +a +b"
        assert supervisor.which_children()[2].state is State.STOPPED


async def test_s27_dynamic_instances_of_one_template_are_restarted_each_alone(stage):
    spec = stage.spec(strategy=Strategy.DYNAMIC, template=ChildSpec("worker", stage.play))
    async with stage.running(spec) as supervisor:
        await supervisor.start_instance("x")
        await supervisor.start_instance("y")
        await stage.crash("x")
        await trio.sleep(1)
        assert stage.read() == "+x +y !x +x"
        ids = [child.id for child in supervisor.which_children()]
        assert ids == ["worker#1", "worker#2"]


async def test_s27_dynamic_instances_stop_at_the_same_time(stage):
    spec = stage.spec(strategy=Strategy.DYNAMIC, template=ChildSpec("worker", stage.play))
    async with stage.running(spec) as supervisor:
        for name in "xyz":
            stage.role(name).cleanup_s = 2.0
            await supervisor.start_instance(name)
        began = trio.current_time()
        await supervisor.stop()
        assert trio.current_time() - began == 2.0


async def test_s28_a_dynamic_child_that_ignores_its_restart_is_removed(stage):
    lives = []

    async def once(*, task_status):
        lives.append(1)
        if len(lives) > 1:
            return IGNORE
        task_status.started()
        raise ValueError("crash")

    spec = stage.spec(strategy=Strategy.DYNAMIC, template=ChildSpec("worker", once))
    async with stage.running(spec) as supervisor:
        await supervisor.start_instance()
        await trio.sleep(1)
        assert len(lives) == 2
        assert supervisor.which_children() == ()


async def test_s29_two_failures_in_the_same_tick_are_both_handled_and_both_counted(stage):
    async with stage.running(stage.spec("a b c")) as supervisor:
        stage.end_soon("a", ValueError("a"))
        stage.end_soon("b", ValueError("b"))
        await trio.sleep(1)
        assert sorted(report.path for report in stage.heard(ChildCrashed)) == ["a", "b"]
        assert sum(child.restarts_in_window for child in supervisor.snapshot().children) == 2
        assert [child.state for child in supervisor.which_children()] == [State.RUNNING] * 3


@pytest.mark.parametrize("seed", range(5))
def test_s29_under_one_seed_failures_of_one_tick_are_always_handled_in_the_same_order(
    new_stage, monkeypatch, seed
):
    """The order in which trio runs the tasks of a tick is drawn from its dice; nothing else decides."""

    def run() -> list[str]:
        monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        monkeypatch.setattr(trio._core._run, "_r", Random(seed))
        stage = new_stage()
        trio.run(crash_all, stage, clock=MockClock(autojump_threshold=0))
        return [report.path for report in stage.heard(ChildCrashed)]

    async def crash_all(stage):
        async with stage.running(stage.spec("a b c d e f")):
            for child_id in "abcdef":
                stage.end_soon(child_id, ValueError(child_id))
            await trio.sleep(1)

    orders = [run() for _ in range(3)]
    assert sorted(orders[0]) == list("abcdef")
    assert orders == [orders[0]] * 3


async def test_s30_a_leaf_that_fails_restarts_the_leaf_alone(stage):
    nested = child_supervisor("sub", stage.spec("x y"))
    async with stage.running(stage.spec((stage.child("a"), nested))):
        await stage.crash("x")
        await trio.sleep(1)
        assert stage.read() == "+a +x +y !x +x"


async def test_s30_a_sub_supervisor_that_fails_comes_back_with_its_static_children_alone(stage):
    nested = child_supervisor("sub", stage.spec("x", intensity=0))
    async with stage.running(stage.spec((stage.child("a"), nested))) as supervisor:
        await supervisor.find("sub").start_child(stage.child("added"))
        await stage.crash("x")
        await trio.sleep(1)
        assert stage.read() == "+a +x +added !x -added +x"
        assert [child.id for child in supervisor.find("sub").which_children()] == ["x"]
