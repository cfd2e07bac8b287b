"""B. Restart types: which ends of a child are answered with a new start (S13 to S20)."""

import weakref

import pytest
import trio

from supervisors import (
    ChildCrashed,
    ChildEnded,
    ChildSpec,
    NotFound,
    Restart,
    Restarting,
    RestartScheduled,
    Running,
    Shutdown,
    State,
)

ENDS = {"returns": None, "Shutdown": Shutdown("done"), "raises": ValueError("bug")}


@pytest.mark.parametrize("error", ENDS.values(), ids=ENDS)
async def test_s13_a_permanent_child_is_restarted_after_every_end(stage, error):
    async with stage.running(stage.spec("a")) as supervisor:
        await stage.end("a", error)
        await trio.sleep(1)
        assert stage.read() == "+a !a +a"
        assert supervisor.which_children()[0].restarts == 1


@pytest.mark.parametrize("end", ["returns", "Shutdown"])
async def test_s14_a_transient_child_that_ends_well_stays_undefined_until_restarted_by_hand(
    stage, end
):
    child = stage.child("a", restart=Restart.TRANSIENT)
    async with stage.running(stage.spec((child,))) as supervisor:
        await stage.end("a", ENDS[end])
        await trio.sleep(10)
        assert supervisor.which_children()[0].state is State.UNDEFINED
        assert [type(report) for report in stage.reports[1:]] == [ChildEnded]
        await supervisor.restart_child("a")
        assert stage.read() == "+a !a +a"


async def test_s14_a_transient_child_that_crashes_is_restarted(stage):
    child = stage.child("a", restart=Restart.TRANSIENT)
    async with stage.running(stage.spec((child,))):
        await stage.crash("a")
        await trio.sleep(1)
        assert stage.read() == "+a !a +a"
        assert len(stage.heard(ChildCrashed)) == 1


@pytest.mark.parametrize("error", ENDS.values(), ids=ENDS)
async def test_s15_a_temporary_child_is_never_restarted_and_its_spec_is_gone_at_once(stage, error):
    child = stage.child("a", restart=Restart.TEMPORARY)
    async with stage.running(stage.spec((child, stage.child("b")))) as supervisor:
        await stage.end("a", error)
        assert [child.id for child in supervisor.which_children()] == ["b"]
        assert stage.heard(RestartScheduled) == []


async def test_s16_the_arguments_of_a_temporary_child_are_free_after_its_end(stage):
    class Argument:
        pass

    async def uses(argument, *, task_status):
        task_status.started()
        raise ValueError("with the argument in a frame")

    async with stage.running(stage.spec(), on_report=lambda _: None) as supervisor:
        argument = Argument()
        seen = weakref.ref(argument)
        spec = ChildSpec("a", uses, args=(argument,), restart=Restart.TEMPORARY)
        await supervisor.start_child(spec)
        del argument, spec
        await trio.sleep(1)
        assert seen() is None, "freed at once, not when the garbage collector comes by"


async def test_s17_a_restarted_child_gets_the_original_arguments_and_nothing_of_its_predecessor(
    stage,
):
    seen = []

    class Actor:
        def __init__(self, name):
            self.name, self.handled = name, 0

    async def act(name, *, task_status):
        actor = Actor(name)
        seen.append((actor, actor.name, actor.handled))
        actor.handled += 1
        task_status.started()
        await trio.sleep(1)
        raise ValueError(name)

    async with stage.running(stage.spec((ChildSpec("a", act, args=("x",)),))):
        await trio.sleep(1.5)
    first, second = seen
    assert first[0] is not second[0]
    assert first[1:] == second[1:] == ("x", 0)


async def test_s19_stopping_by_hand_is_no_restart_and_triggers_none(stage):
    async with stage.running(stage.spec("a b", intensity=0)) as supervisor:
        await supervisor.stop_child("a")
        await trio.sleep(10)
        states = [(child.state, child.restarts) for child in supervisor.which_children()]
        assert states == [(State.STOPPED, 0), (State.RUNNING, 0)]
        assert stage.heard(RestartScheduled) == []


async def test_s20_restart_by_hand_is_refused_for_running_restarting_and_unknown_children(stage):
    async with stage.running(stage.spec("a b")) as supervisor:
        with pytest.raises(Running):
            await supervisor.restart_child("a")
        await stage.crash("b")
        with pytest.raises(Restarting):
            await supervisor.restart_child("b")
        with pytest.raises(NotFound):
            await supervisor.restart_child("c")


async def test_s20_a_restart_by_hand_that_fails_keeps_the_child_stopped(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        await supervisor.stop_child("a")
        stage.role("a").refuse = [ValueError("no")]
        with pytest.raises(Exception, match="did not start: ValueError: no"):
            await supervisor.restart_child("a")
        assert supervisor.which_children()[0].state is State.UNDEFINED
        await supervisor.restart_child("a")
        assert supervisor.which_children()[0].state is State.RUNNING
