"""A. Start: order, readiness, failures and refusals (S1 to S12)."""

import math
from dataclasses import replace
from functools import partial

import pytest
import trio

from supervisors import (
    IGNORE,
    AlreadyPresent,
    AlreadyStarted,
    AutoShutdown,
    ChildSpec,
    ConfigError,
    Kind,
    NotFound,
    NotStarted,
    Restart,
    StartFailed,
    StartTimeout,
    State,
    Strategy,
    SupervisorSpec,
    child_supervisor,
    supervise,
)


async def test_s01_children_start_left_to_right_each_when_the_one_before_is_ready(stage):
    stage.role("a").start_s = 3.0
    began = trio.current_time()
    async with stage.running(stage.spec("a b c")):
        assert stage.read() == "+a +b +c"
        assert trio.current_time() - began == 3.0


async def test_s02_a_child_that_does_not_start_takes_down_those_before_it_in_reverse(stage):
    stage.role("c").refuse = [ValueError("no")]
    with pytest.raises(StartFailed) as failure:
        await stage.supervise(stage.spec("a b c d"))
    assert stage.read() == "+a +b -b -a"
    assert failure.value.child_id == "c"


async def test_s03_an_exception_before_started_is_a_start_failure_with_its_cause_unwrapped(stage):
    stage.role("a").refuse = [error := ValueError("no")]
    with pytest.raises(StartFailed) as failure:
        await stage.supervise(stage.spec("a"))
    assert failure.value.__cause__ is error


async def test_s04_a_return_before_started_is_a_start_failure():
    async def returns(*, task_status):
        pass

    with pytest.raises(StartFailed) as failure:
        await supervise(SupervisorSpec((ChildSpec("a", returns),)))
    assert isinstance(failure.value.__cause__, NotStarted)


async def test_s05_a_child_that_never_gets_ready_is_cancelled_after_ten_seconds(stage):
    stage.role("a").start_s = math.inf
    with pytest.raises(StartFailed) as failure:
        await stage.supervise(stage.spec("a"))
    assert isinstance(failure.value.__cause__, StartTimeout)
    assert trio.current_time() == 10.0


async def test_s05_a_start_without_limit_waits_and_the_supervisor_still_answers(stage):
    stage.role("link").start_s = math.inf
    spec = stage.spec((stage.child("link", start_timeout_s=math.inf), stage.child("b")))
    opened = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(stage.supervise, spec, on_open=opened.append))
        await trio.sleep(1000)
        root = opened[0]
        assert [child.state for child in root.which_children()] == [State.STARTING, State.WAITING]
        assert root.snapshot().state is State.STARTING
        await root.stop()


async def test_s05_a_start_that_comes_too_late_is_no_start(stage):
    async def late(*, task_status):
        with trio.CancelScope(shield=True):
            await trio.sleep(12.0)
        task_status.started()

    with pytest.raises(StartFailed) as failure:
        await stage.supervise(stage.spec((stage.child("a"), ChildSpec("b", late))))
    assert isinstance(failure.value.__cause__, StartTimeout)
    assert stage.read() == "+a -a"


@pytest.mark.parametrize(
    ("strategy", "diary"),
    [(Strategy.ONE_FOR_ONE, "+a !a +a"), (Strategy.REST_FOR_ONE, "+a !a -b +a")],
)
async def test_s01_a_child_that_fails_while_a_later_one_still_starts_is_restarted_meanwhile(
    stage, strategy, diary
):
    stage.role("b").start_s = 5.0
    spec = stage.spec("a b c", strategy=strategy)
    async with trio.open_nursery() as nursery:
        opened = []
        nursery.start_soon(partial(stage.supervise, spec, on_open=opened.append))
        await trio.sleep(1.0)
        await stage.crash("a")
        await trio.sleep(1.0)
        assert stage.read() == diary
        await trio.sleep(5.0)
        assert stage.read() == "+b +c"
        assert opened[0].snapshot().state is State.RUNNING
        await opened[0].stop()


@pytest.mark.parametrize("restart", [Restart.PERMANENT, Restart.TRANSIENT])
async def test_s06_a_child_that_ignores_its_start_is_kept_undefined(stage, restart):
    async with stage.running(stage.spec((ignoring("a", restart), stage.child("b")))) as supervisor:
        assert [child.state for child in supervisor.which_children()] == [
            State.UNDEFINED,
            State.RUNNING,
        ]


async def test_s06_a_temporary_or_dynamic_child_that_ignores_its_start_is_removed(stage):
    async with stage.running(stage.spec((ignoring("a", Restart.TEMPORARY),))) as supervisor:
        assert supervisor.which_children() == ()
    dynamic = stage.spec(strategy=Strategy.DYNAMIC, template=ignoring("a", Restart.PERMANENT))
    async with stage.running(dynamic) as supervisor:
        assert await supervisor.start_instance() is IGNORE
        assert supervisor.which_children() == ()


async def test_s06_starting_an_ignoring_child_by_hand_answers_ignore(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        assert await supervisor.start_child(ignoring("b", Restart.PERMANENT)) is IGNORE
        assert await supervisor.restart_child("b") is IGNORE


async def test_s06_ignore_after_the_start_is_an_ordinary_return(stage):
    async def changes_its_mind(*, task_status):
        task_status.started()
        await trio.sleep(1)
        return IGNORE

    async with stage.running(stage.spec((ChildSpec("a", changes_its_mind),))) as supervisor:
        await trio.sleep(1.5)
        assert supervisor.which_children()[0].restarts == 1


async def test_s07_a_config_that_ignores_leaves_an_undefined_child(stage):
    nested = child_supervisor("sub", lambda: IGNORE)
    async with stage.running(stage.spec((nested,))) as supervisor:
        assert [child.state for child in supervisor.which_children()] == [State.UNDEFINED]


async def test_s07_a_config_that_raises_fails_the_start_with_that_error(stage):
    def config():
        raise error

    error = OSError("no file")
    with pytest.raises(OSError, match="no file"):
        await stage.supervise(config)
    with pytest.raises(StartFailed) as failure:
        await stage.supervise(stage.spec((stage.child("a"), child_supervisor("sub", config))))
    assert failure.value.__cause__ is error
    assert stage.read() == "+a -a"


async def test_s07_an_invalid_config_value_is_a_config_error(stage):
    with pytest.raises(ConfigError, match="expected a SupervisorSpec, got str"):
        await stage.supervise(lambda: "nonsense")


def _good(**changes):
    return replace(ChildSpec("a", _sleeper), **changes)


async def _sleeper(*, task_status):
    task_status.started()
    await trio.sleep_forever()


BAD_SPECS = {
    "id is empty": (SupervisorSpec((_good(id=""),)), "child id ''"),
    "id has a slash": (SupervisorSpec((_good(id="a/b"),)), "child id 'a/b'"),
    "start is missing": (SupervisorSpec((_good(start=None),)), "start is None"),
    "start is not async": (SupervisorSpec((_good(start=len),)), "use an async function"),
    "start is a class": (SupervisorSpec((_good(start=SupervisorSpec),)), "use an async function"),
    "restart type": (SupervisorSpec((_good(restart="always"),)), "unknown restart type 'always'"),
    "kind": (SupervisorSpec((_good(kind="thing"),)), "unknown kind 'thing'"),
    "shutdown below 0": (SupervisorSpec((_good(shutdown_s=-1),)), "shutdown_s is -1"),
    "shutdown is nan": (SupervisorSpec((_good(shutdown_s=math.nan),)), "shutdown_s is nan"),
    "start timeout 0": (SupervisorSpec((_good(start_timeout_s=0),)), "start_timeout_s is 0"),
    "heartbeat 0": (SupervisorSpec((_good(heartbeat_s=0),)), "heartbeat_s is 0"),
    "same id twice": (SupervisorSpec((_good(), _good())), "'a': the id is used twice"),
    "not a child": (SupervisorSpec(("a",)), "expected a ChildSpec, got str"),
    "intensity below 0": (SupervisorSpec(intensity=-1), "intensity is -1"),
    "intensity not whole": (SupervisorSpec(intensity=1.5), "intensity is 1.5"),
    "intensity is a flag": (SupervisorSpec(intensity=True), "intensity is True"),
    "period 0": (SupervisorSpec(period_s=0), "period_s is 0"),
    "strategy": (SupervisorSpec(strategy="all"), "unknown strategy 'all'"),
    "auto_shutdown": (SupervisorSpec(auto_shutdown="any"), "unknown auto_shutdown 'any'"),
    "dynamic without template": (SupervisorSpec(strategy=Strategy.DYNAMIC), "a template belongs"),
    "significant and permanent": (
        SupervisorSpec((_good(significant=True),), auto_shutdown=AutoShutdown.ANY_SIGNIFICANT),
        "cannot be significant",
    ),
    "significant for nothing": (
        SupervisorSpec((_good(significant=True, restart=Restart.TRANSIENT),)),
        "means nothing while auto_shutdown is NEVER",
    ),
    "inside a nested one": (
        SupervisorSpec((child_supervisor("sub", SupervisorSpec((_good(shutdown_s=-1),))),)),
        "sub/child 'a': shutdown_s is -1",
    ),
}


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS.values(), ids=BAD_SPECS)
async def test_s08_a_bad_spec_is_refused_before_any_child_starts(stage, spec, message):
    with pytest.raises(ConfigError, match=message.replace("(", ".")):
        await stage.supervise(replace(spec, children=(stage.child("first"), *spec.children)))
    assert stage.diary == []


async def test_s08_every_fault_is_named_at_once():
    with pytest.raises(ConfigError) as refusal:
        await supervise(SupervisorSpec((_good(id=""), _good(shutdown_s=-1)), intensity=-1))
    assert len(refusal.value.faults) == 3


async def test_s08_partials_methods_and_callable_objects_may_be_a_start(stage):
    class Service:
        async def __call__(self, *, task_status):
            await _sleeper(task_status=task_status)

        async def method(self, *, task_status):
            await _sleeper(task_status=task_status)

    starts = (partial(_sleeper), Service(), Service().method)
    children = tuple(ChildSpec(str(n), start) for n, start in enumerate(starts))
    async with stage.running(SupervisorSpec(children)) as supervisor:
        assert supervisor.count_children().active == 3


async def test_s09_defaults_are_filled_in_and_can_be_read_back(stage):
    nested = child_supervisor("sub", SupervisorSpec())
    async with stage.running(SupervisorSpec((ChildSpec("a", _sleeper), nested))) as supervisor:
        child, sub = supervisor.get_childspec("a"), supervisor.get_childspec("sub")
        assert (child.restart, child.kind, child.significant) == (
            Restart.PERMANENT,
            Kind.WORKER,
            False,
        )
        assert (child.shutdown_s, child.start_timeout_s) == (5.0, 10.0)
        assert (sub.kind, sub.shutdown_s, sub.start_timeout_s) == (
            Kind.SUPERVISOR,
            math.inf,
            math.inf,
        )
        with pytest.raises(NotFound, match="'b'"):
            supervisor.get_childspec("b")


def test_s09_the_defaults_of_a_supervisor_are_those_of_otp():
    spec = SupervisorSpec()
    assert (spec.strategy, spec.intensity, spec.period_s) == (Strategy.ONE_FOR_ONE, 1, 5.0)
    assert spec.auto_shutdown is AutoShutdown.NEVER


async def test_s10_start_child_answers_with_what_the_child_gave_to_started(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        assert await supervisor.start_child(stage.child("b")) == "b"


async def test_s10_the_id_of_a_running_child_is_already_started(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        with pytest.raises(AlreadyStarted):
            await supervisor.start_child(stage.child("a"))


async def test_s10_the_id_of_a_stopped_child_is_already_present(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        await supervisor.stop_child("a")
        with pytest.raises(AlreadyPresent):
            await supervisor.start_child(stage.child("a"))


async def test_s10_a_child_that_fails_to_start_by_hand_is_not_kept_and_harms_nobody(stage):
    stage.role("b").refuse = [error := ValueError("no")]
    async with stage.running(stage.spec("a")) as supervisor:
        with pytest.raises(StartFailed) as failure:
            await supervisor.start_child(stage.child("b"))
        assert failure.value.__cause__ is error
        assert [child.id for child in supervisor.which_children()] == ["a"]
        assert stage.read() == "+a"


async def test_s10_a_bad_spec_by_hand_is_refused_and_harms_nobody(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        with pytest.raises(ConfigError):
            await supervisor.start_child(stage.child("b", shutdown_s=-1))
        assert supervisor.count_children().specs == 1


async def test_s10_a_caller_that_gives_up_waiting_takes_its_child_back(stage):
    stage.role("b").start_s = 5.0
    async with stage.running(stage.spec("a")) as supervisor:
        with trio.move_on_after(1.0):
            await supervisor.start_child(stage.child("b"))
        await trio.sleep(10.0)
        assert stage.read() == "+a -b"
        assert supervisor.count_children().specs == 1


async def test_s11_the_root_runs_only_when_every_child_has_started(stage):
    stage.role("b").start_s = 3.0
    opened = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(stage.supervise, stage.spec("a b"), on_open=opened.append))
        await trio.sleep(2.9)
        assert opened[0].snapshot().state is State.STARTING
        await trio.sleep(0.2)
        assert opened[0].snapshot().state is State.RUNNING
        await opened[0].stop()


async def test_s12_cancelling_the_start_half_way_stops_in_reverse_and_is_no_failure(stage):
    stage.role("c").start_s = 5.0
    with trio.move_on_after(1.0) as scope:
        await stage.supervise(stage.spec("a b c"))
    assert scope.cancelled_caught
    assert stage.read() == "+a +b -c -b -a"


def ignoring(child_id, restart):
    async def ignore(*, task_status):
        return IGNORE

    return ChildSpec(child_id, ignore, restart=restart)
