"""D. Intensity, back-off and escalation (S31 to S46)."""

import math
import time
from random import Random

import pytest
import trio

from supervisors import (
    Backoff,
    ChildSpec,
    ChildStarted,
    ConfigError,
    GaveUp,
    MaxRestartsExceeded,
    Restart,
    RestartFailed,
    RestartScheduled,
    State,
    Strategy,
    SupervisorSpec,
    child_supervisor,
)
from supervisors.exits import Exit, ExitKind
from supervisors.intensity import RestartWindow
from supervisors.machine import Machine
from supervisors.roster import Mode, Roster
from supervisors.spec import check

QUICK = Backoff(min_s=0.0, max_s=0.0, jitter=0.0)


async def test_s31_exactly_intensity_restarts_are_fine_and_one_more_stops_all_in_reverse(stage):
    async with stage.running(stage.spec("a b c", intensity=2, backoff=QUICK)):
        await stage.crash("b")
        await stage.crash("b")
        assert stage.read() == "+a +b +c !b +b !b +b"
        await stage.crash("b")
        assert stage.read() == "!b -c -a"
    assert isinstance(stage.verdict, MaxRestartsExceeded)


@pytest.mark.parametrize(("age_s", "counts"), [(4.999, True), (5.0, True), (5.001, False)])
def test_s31_a_restart_exactly_one_period_old_counts(age_s, counts):
    window = RestartWindow(intensity=1, period_s=5.0).add(100.0, "a")
    assert window.add(100.0 + age_s, "a").exceeded is counts


async def test_s32_restarts_are_counted_over_all_children_of_a_supervisor(stage):
    async with stage.running(stage.spec("a b c", intensity=2, backoff=QUICK)):
        for child_id in "abc":
            await stage.crash(child_id)
    assert isinstance(stage.verdict, MaxRestartsExceeded)


async def test_s33_every_failed_attempt_to_restart_counts(stage):
    async with stage.running(stage.spec("a", intensity=3, period_s=60.0)):
        stage.role("a").refuse = [ValueError("not yet")] * 3
        await stage.crash("a")
        await trio.sleep(10)
        assert len(stage.heard(RestartFailed)) == 3
    assert isinstance(stage.verdict, MaxRestartsExceeded)


async def test_s34_restarts_further_apart_than_the_period_never_escalate(stage):
    async with stage.running(stage.spec("a", intensity=1, period_s=5.0)):
        for _ in range(50):
            await stage.crash("a")
            await trio.sleep(6.5)
    assert stage.verdict is None


async def test_s35_with_intensity_0_the_first_restart_escalates(stage):
    async with stage.running(stage.spec("a", intensity=0)):
        await stage.crash("a")
    assert isinstance(stage.verdict, MaxRestartsExceeded)


async def test_s36_a_jump_of_the_wall_clock_changes_nothing(stage, monkeypatch):
    async with stage.running(stage.spec("a", intensity=1, period_s=5.0)):
        await stage.crash("a")
        await trio.sleep(1)
        monkeypatch.setattr(time, "time", lambda: 4e9)
        await stage.crash("a")
    assert isinstance(stage.verdict, MaxRestartsExceeded)


@pytest.mark.parametrize("restart", [Restart.PERMANENT, Restart.TRANSIENT])
async def test_s37_giving_up_is_abnormal_so_a_transient_parent_entry_acts_too(stage, restart):
    nested = child_supervisor("sub", stage.spec("x", intensity=0), restart=restart)
    async with stage.running(stage.spec((nested,))):
        await stage.crash("x")
        await trio.sleep(1)
        assert stage.read() == "+x !x +x"


async def test_s38_the_delay_doubles_up_to_its_maximum(stage):
    async with stage.running(stage.spec("a", intensity=9)):
        stage.role("a").refuse = [ValueError("not yet")] * 6
        await stage.crash("a")
        await trio.sleep(10)
    delays = [report.delay_s for report in stage.heard(RestartScheduled)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    times = [report.at for report in stage.heard(RestartFailed)]
    assert times[1] - times[0] == pytest.approx(0.2)


async def test_s38_after_the_stable_time_the_delay_starts_small_again(stage):
    async with stage.running(stage.spec("a")):
        for lived_s in (0.0, 5.0, 10.0):
            await trio.sleep(lived_s)
            await stage.crash("a")
            await trio.sleep(0.5)
    # Stable is 10 s: the second life was too short for it, the third was not.
    assert [report.delay_s for report in stage.heard(RestartScheduled)] == [0.1, 0.2, 0.1]


def test_s38_the_stable_time_is_half_of_minimum_and_maximum_unless_told():
    assert Backoff(min_s=1.0, max_s=5.0).stable_s == 3.0
    assert Backoff(stable_after_s=7.0).stable_s == 7.0


def test_s38_jitter_stays_inside_its_bounds_and_follows_the_seed():
    backoff = Backoff(min_s=1.0, max_s=8.0, jitter=0.25)
    delays = [backoff.delay_s(3, rng) for rng in map(Random, range(500))]
    assert 6.0 <= min(delays) < 6.1
    assert 9.9 < max(delays) <= 10.0
    assert delays[7] == backoff.delay_s(3, Random(7))


def test_s38_a_thousand_restarts_in_a_row_overflow_nothing():
    assert Backoff(jitter=0.0).delay_s(100_000, Random(1)) == 5.0


async def test_s39_while_one_child_backs_off_the_supervisor_answers(stage):
    backoff = Backoff(min_s=10.0, max_s=10.0, jitter=0.0)
    async with stage.running(stage.spec("a b c", intensity=5, backoff=backoff)) as supervisor:
        await stage.crash("a")
        with trio.fail_after(1):
            assert supervisor.snapshot().find("a").until == trio.current_time() + 10.0
            await supervisor.start_child(stage.child("d"))
            await supervisor.stop_child("b")
            await stage.crash("c")
        states = {child.id: child.state for child in supervisor.which_children()}
        assert states == {
            "a": State.RESTARTING,
            "b": State.STOPPED,
            "c": State.RESTARTING,
            "d": State.RUNNING,
        }


async def test_s40_stopping_a_child_during_its_back_off_is_done_at_once_and_for_good(stage):
    async with stage.running(stage.spec("a")) as supervisor:
        await stage.crash("a")
        before = trio.current_time()
        await supervisor.stop_child("a")
        assert trio.current_time() == before
        await trio.sleep(10)
        assert stage.read() == "+a !a"


def test_s40_a_stop_heard_in_the_same_tick_as_the_end_of_the_back_off_wins():
    roster = Roster(SupervisorSpec((ChildSpec("a", trio.sleep),), backoff=Backoff()), "/", now=0.0)
    machine = Machine(roster, Random(1))
    machine.begin(0.0)
    (child,) = roster.children.values()
    machine.started(child, None, 0.0)
    machine.exited(child, Exit(ExitKind.ABNORMAL, ValueError()), 0.0)
    roster.take_orders()
    machine.stop(child.due)
    machine.tick(child.due)
    assert roster.take_orders() == []
    assert roster.mode is Mode.ENDED


async def test_s40_a_stop_at_the_moment_a_back_off_ends_leaves_nothing_running(stage):
    outcomes = set()
    for _ in range(30):  # The scheduler decides who of the two wakes up first.
        async with stage.running(stage.spec("a")) as supervisor:
            await stage.crash("a")
            await trio.sleep_until(supervisor.snapshot().find("a").until)
            await supervisor.stop()
            outcomes.add(stage.read())
            await trio.sleep(10)
            assert stage.read() == ""
    assert outcomes == {"+a !a", "+a !a +a -a"}


async def test_s40_the_whole_supervisor_stops_at_once_during_a_back_off(stage):
    async with stage.running(stage.spec("a b")) as supervisor:
        await stage.crash("a")
        before = trio.current_time()
        await supervisor.stop()
        assert trio.current_time() == before
        await trio.sleep(10)
        assert stage.read() == "+a +b !a -b"
        assert [child.state for child in supervisor.which_children()] == [State.STOPPED] * 2


async def test_s41_an_earlier_childs_crash_during_a_back_off_makes_one_combined_restart(stage):
    backoff = Backoff(min_s=1.0, max_s=8.0, jitter=0.0)
    spec = stage.spec("a b c", strategy=Strategy.REST_FOR_ONE, backoff=backoff, period_s=600.0)
    async with stage.running(spec):
        await stage.crash("c")
        await trio.sleep(0.9)
        await stage.crash("a")
        await trio.sleep(0.5)
        assert stage.read() == "+a +b +c !c !a -b", "the timer of c is void"
        await trio.sleep(0.6)
        assert stage.read() == "+a +b +c"
        await trio.sleep(20)
        assert stage.read() == ""


async def test_s41_a_long_back_off_is_void_when_an_earlier_child_restarts_sooner(stage):
    backoff = Backoff(min_s=1.0, max_s=8.0, jitter=0.0)
    spec = stage.spec("a b", strategy=Strategy.REST_FOR_ONE, backoff=backoff, period_s=600.0)
    async with stage.running(spec):
        stage.role("b").refuse = [ValueError("not yet")] * 3
        await stage.crash("b")
        await trio.sleep(7.5)  # Tried at 1, 3 and 7; the next attempt is due at 15.
        stage.read()
        await stage.crash("a")
        await trio.sleep(1.1)
        assert stage.read() == "!a +a +b"


async def test_s41_one_for_all_a_child_added_during_the_back_off_waits_for_its_turn(stage):
    spec = stage.spec("a b", strategy=Strategy.ONE_FOR_ALL)
    async with stage.running(spec) as supervisor:
        await stage.crash("a")
        await supervisor.start_child(stage.child("c"))
        assert stage.read() == "+a +b !a -b +a +b +c"


def test_s42_a_limit_that_could_never_trip_is_refused():
    check(SupervisorSpec(intensity=4, period_s=5.0, backoff=Backoff(1.0, 1.0, jitter=0.0)))
    for spec in (
        SupervisorSpec(intensity=5, period_s=5.0, backoff=Backoff(1.0, 1.0, jitter=0.0)),
        SupervisorSpec(intensity=4, period_s=5.0, backoff=Backoff(1.0, 1.0, jitter=0.25)),
        SupervisorSpec(intensity=1_000_000, period_s=60.0),
    ):
        with pytest.raises(ConfigError, match="could never trip"):
            check(spec)


async def test_s43_a_child_that_never_becomes_stable_is_given_up_however_slowly_it_crashes(stage):
    backoff = Backoff(min_s=0.1, max_s=0.1, jitter=0.0, stable_after_s=60.0, max_consecutive=3)
    async with stage.running(stage.spec("a", intensity=1, period_s=5.0, backoff=backoff)):
        for _ in range(3):
            await stage.crash("a")
            await trio.sleep(30)
        assert stage.verdict is None
        await stage.crash("a")
    assert isinstance(stage.verdict, MaxRestartsExceeded)
    assert "3 times without becoming stable" in str(stage.verdict)


async def test_s44_a_child_that_always_fails_to_start_makes_no_hot_loop(stage):
    base_s, lasting_s = 0.1, 30.0
    backoff = Backoff(min_s=base_s, max_s=5.0, jitter=0.0)
    async with stage.running(stage.spec("a", intensity=20, period_s=600.0, backoff=backoff)):
        stage.role("a").refuse = [ValueError("no")] * 1000
        await stage.crash("a")
        stage.reports.clear()
        await trio.sleep(lasting_s)
        attempts = len(stage.heard(RestartFailed))
        assert 5 < attempts <= math.ceil(lasting_s / base_s)
        assert len(stage.reports) <= 2 * attempts


async def test_s45_a_failure_climbs_level_by_level_with_its_whole_chain_of_causes(stage):
    inner = stage.spec("leaf", intensity=0)
    middle = stage.spec((child_supervisor("inner", inner),), intensity=0)
    root = stage.spec((child_supervisor("middle", middle),), intensity=0)
    async with stage.running(root):
        await stage.crash("leaf")
    gave_up = stage.heard(GaveUp)
    assert [report.path for report in gave_up] == ["middle/inner", "middle", "/"]
    chain = [stage.verdict]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    assert [type(error) for error in chain] == [MaxRestartsExceeded] * 3 + [ValueError]


async def test_s46_in_a_storm_jitter_spreads_the_restarts_and_all_come_back(stage):
    broker_is_up, broker_is_lost = True, trio.Event()

    async def client(*, task_status):
        if not broker_is_up:
            raise ConnectionError("no broker")
        task_status.started()
        await broker_is_lost.wait()
        raise ConnectionError("lost")

    children = tuple(ChildSpec(f"c{n}", client) for n in range(20))
    backoff = Backoff(min_s=0.1, max_s=5.0, jitter=0.2)
    spec = SupervisorSpec(children, intensity=400, period_s=2400.0, backoff=backoff)
    async with stage.running(spec) as supervisor:
        broker_is_up = False
        broker_is_lost.set()
        await trio.sleep(60)
        attempts = stage.heard(RestartFailed)
        assert len(attempts) < 20 * 25
        assert len({report.at for report in attempts}) > len(attempts) * 0.9
        broker_is_up, broker_is_lost = True, trio.Event()
        stage.reports.clear()
        await trio.sleep(10)
        assert len(stage.heard(ChildStarted)) == 20
        assert {child.state for child in supervisor.which_children()} == {State.RUNNING}
