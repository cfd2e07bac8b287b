"""F. Significant children: a supervisor that ends with the work of its children (S58 to S64)."""

import pytest
import trio

from supervisors import (
    AutoShutdown,
    ConfigError,
    Restart,
    Shutdown,
    State,
    Strategy,
    child_supervisor,
)

ANY, ALL = AutoShutdown.ANY_SIGNIFICANT, AutoShutdown.ALL_SIGNIFICANT


def significant(stage, child_id, restart=Restart.TRANSIENT):
    return stage.child(child_id, restart=restart, significant=True)


async def test_s58_significant_children_are_refused_where_nothing_would_come_of_them(stage):
    with pytest.raises(ConfigError, match="auto_shutdown is NEVER"):
        await stage.supervise(stage.spec((significant(stage, "a"),)))


async def test_s58_a_significant_child_added_by_hand_is_refused_there_too(stage):
    async with stage.running(stage.spec()) as supervisor:
        with pytest.raises(ConfigError, match="auto_shutdown is NEVER"):
            await supervisor.start_child(significant(stage, "a"))


@pytest.mark.parametrize(
    ("restart", "error"),
    [
        (Restart.TRANSIENT, None),
        (Restart.TRANSIENT, Shutdown("done")),
        (Restart.TEMPORARY, None),
        (Restart.TEMPORARY, ValueError("bug")),
    ],
)
async def test_s59_any_significant_child_that_ends_for_good_ends_the_supervisor(
    stage, restart, error
):
    children = (stage.child("a"), significant(stage, "s", restart), significant(stage, "t"))
    async with stage.running(stage.spec(children, auto_shutdown=ANY)):
        await stage.end("s", error)
    assert isinstance(stage.verdict, Shutdown)
    assert stage.read() == "+a +s +t !s -t -a"


async def test_s60_all_significant_waits_for_the_last_active_one(stage):
    children = (stage.child("a"), significant(stage, "s"), significant(stage, "t"))
    async with stage.running(stage.spec(children, auto_shutdown=ALL)) as supervisor:
        await stage.end("s")
        assert supervisor.snapshot().state is State.RUNNING
        await stage.end("a")
        assert supervisor.snapshot().state is State.RUNNING
        await stage.end("t")
    assert isinstance(stage.verdict, Shutdown)


async def test_s60_a_significant_child_in_back_off_counts_as_active(stage):
    children = (significant(stage, "s"), significant(stage, "t"))
    async with stage.running(stage.spec(children, auto_shutdown=ALL)) as supervisor:
        await stage.crash("s")
        await stage.end("t")
        assert supervisor.snapshot().state is State.RUNNING


async def test_s61_a_significant_transient_child_that_crashes_is_restarted(stage):
    spec = stage.spec((significant(stage, "s"),), auto_shutdown=ANY)
    async with stage.running(spec):
        await stage.crash("s")
        await trio.sleep(1)
        assert stage.read() == "+s !s +s"
    assert stage.verdict is None


async def test_s62_stopping_a_significant_child_by_hand_triggers_nothing(stage):
    spec = stage.spec((significant(stage, "s"),), auto_shutdown=ANY)
    async with stage.running(spec) as supervisor:
        await supervisor.stop_child("s")
        assert supervisor.snapshot().state is State.RUNNING
    assert stage.verdict is None


@pytest.mark.parametrize("restart", [Restart.TRANSIENT, Restart.TEMPORARY])
async def test_s63_a_significant_bystander_of_a_restart_triggers_nothing(stage, restart):
    children = (stage.child("a"), significant(stage, "s", restart))
    spec = stage.spec(children, auto_shutdown=ANY, strategy=Strategy.ONE_FOR_ALL)
    async with stage.running(spec) as supervisor:
        await stage.crash("a")
        await trio.sleep(1)
        assert supervisor.snapshot().state is State.RUNNING
    assert stage.verdict is None


async def test_s64_a_significant_supervisor_that_ends_itself_ends_its_parent_normally(stage):
    inner = stage.spec((significant(stage, "s"),), auto_shutdown=ANY)
    nested = child_supervisor("sub", inner, restart=Restart.TRANSIENT, significant=True)
    async with stage.running(stage.spec((stage.child("a"), nested), auto_shutdown=ANY)):
        await stage.end("s")
    assert isinstance(stage.verdict, Shutdown)
    assert stage.read() == "+a +s !s -a"
