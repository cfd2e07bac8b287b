"""H. What trio and Python add: groups, isolation, hostile errors, bugs, contexts (S71 to S85)."""

import contextvars
import gc
import threading

import pytest
import trio

from supervisors import (
    ChildCrashed,
    ChildSpec,
    ConfigError,
    Hung,
    MaxRestartsExceeded,
    MemoryExhausted,
    RestartScheduled,
    Shutdown,
    State,
    StrayCancellation,
    SupervisorStopped,
    child_supervisor,
)
from supervisors.errors import TEXT_MAX, brief
from supervisors.exits import ExitKind, classify


def cancelled():
    return trio.Cancelled._create(source="test")


def group(*errors):
    return BaseExceptionGroup("inner nursery", errors)


NORMAL, ABNORMAL, FATAL = ExitKind.NORMAL, ExitKind.ABNORMAL, ExitKind.FATAL

ENDS = [
    # what came out, whether it had been cancelled, how it is judged
    (None, False, NORMAL),
    (Shutdown("done"), False, NORMAL),
    (cancelled(), True, NORMAL),
    (cancelled(), False, ABNORMAL),
    (ValueError(), False, ABNORMAL),
    (ValueError(), True, ABNORMAL),
    (KeyboardInterrupt(), False, FATAL),
    (SystemExit(3), True, FATAL),
    (GeneratorExit(), False, FATAL),
    (ConfigError(("wrong",)), False, FATAL),
    (PermissionError(), False, FATAL),  # Marked never-restart below.
    (group(cancelled(), cancelled()), True, NORMAL),
    (group(cancelled()), False, ABNORMAL),
    (group(Shutdown("done"), cancelled()), True, NORMAL),
    (group(cancelled(), ValueError()), True, ABNORMAL),
    (group(ValueError(), KeyboardInterrupt()), False, FATAL),
    (group(ValueError(), group(KeyError(), group(SystemExit(1)))), False, FATAL),
    (group(ValueError(), group(PermissionError())), False, FATAL),
]


@pytest.mark.parametrize(("error", "cancelled", "kind"), ENDS)
def test_s71_an_end_is_judged_by_its_leaves(error, cancelled, kind):
    judged = classify(error, cancelled=cancelled, never_restart=(PermissionError,))
    assert judged.kind is kind


def test_s71_the_whole_group_and_its_notes_are_kept():
    error = group(ValueError("a"), group(KeyError("b")))
    error.add_note("while reading")
    assert classify(error, cancelled=False).error is error
    assert brief(error) == "ExceptionGroup of ValueError: a; KeyError: 'b'"


async def test_s71_a_stray_cancellation_is_abnormal_and_restarted(stage):
    lives = []

    async def leaks(*, task_status):
        task_status.started()
        lives.append(1)
        if len(lives) > 1:
            await trio.sleep_forever()
        with trio.CancelScope() as inner:
            inner.cancel()
            try:
                await trio.sleep_forever()
            except trio.Cancelled as error:
                kept = error
        raise kept

    async with stage.running(stage.spec((ChildSpec("a", leaks),))):
        await trio.sleep(1)
        (report,) = stage.heard(ChildCrashed)
        assert isinstance(report.error, StrayCancellation)
        assert len(lives) == 2


async def test_s72_a_crash_never_cancels_a_sibling_nor_delays_it(stage):
    ticks = []

    async def ticker(*, task_status):
        task_status.started()
        while True:
            await trio.sleep(1)
            ticks.append(trio.current_time())

    async with stage.running(stage.spec((ChildSpec("t", ticker), stage.child("a")))):
        for _ in range(5):
            await trio.sleep(1)
            await stage.end("a", group(ValueError("x"), KeyError("y")))
        await trio.sleep(0.5)
    assert ticks == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_s73_a_crash_whose_cleanup_crashes_too_is_one_restart_with_both_recorded(stage):
    lives = []

    async def doubly(*, task_status):
        lives.append(1)
        task_status.started()
        if len(lives) > 1:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cleanup)
            await trio.sleep(1)
            raise ValueError("first")

    async def cleanup():
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("second")

    async with stage.running(stage.spec((ChildSpec("a", doubly),))):
        await trio.sleep(2)
        (report,) = stage.heard(ChildCrashed)
        assert {type(leaf) for leaf in report.error.exceptions} == {ValueError, KeyError}
        assert len(stage.heard(RestartScheduled)) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_s74_s75_a_fatal_error_stops_every_level_in_order_and_goes_out_unchanged(
    stage, error
):
    nested = child_supervisor("sub", stage.spec("x y"))
    async with stage.running(stage.spec((stage.child("a"), nested, stage.child("b")))):
        await stage.end("x", error)
        await trio.sleep(1)
    assert stage.verdict is error
    assert stage.read() == "+a +x +y +b !x -y -b -a"


async def test_s77_a_memory_error_is_restarted_like_any_other(stage):
    async with stage.running(stage.spec("a")):
        await stage.end("a", MemoryError())
        await trio.sleep(61)
        await stage.end("a", MemoryError())
        await trio.sleep(1)
        assert stage.read() == "+a !a +a !a +a"
    assert stage.verdict is None


async def test_s77_two_memory_errors_within_a_minute_are_fatal_wherever_they_happen(stage):
    subs = tuple(child_supervisor(f"sub{n}", stage.spec(f"x{n}")) for n in range(2))
    async with stage.running(stage.spec(subs)):
        await stage.end("x0", MemoryError())
        await trio.sleep(59)
        await stage.end("x1", group(MemoryError()))
    assert isinstance(stage.verdict, MemoryExhausted)


async def test_s78_a_recursion_error_is_an_ordinary_crash(stage):
    lives = []

    async def deep(*, task_status):
        lives.append(1)
        task_status.started()
        if len(lives) == 1:

            def down():
                down()

            down()
        await trio.sleep_forever()

    async with stage.running(stage.spec((ChildSpec("a", deep),))):
        await trio.sleep(1)
        (report,) = stage.heard(ChildCrashed)
        assert isinstance(report.error, RecursionError)
        assert len(lives) == 2


async def test_s79_a_child_that_misses_three_heartbeats_is_restarted_as_hung(stage):
    async def beats_for_a_while(*, task_status):
        task_status.started()
        for _ in range(10):
            await trio.sleep(1)
            task_status.beat()
        await trio.sleep_forever()

    spec = stage.spec((ChildSpec("a", beats_for_a_while, heartbeat_s=2.0),), intensity=1)
    async with stage.running(spec) as supervisor:
        await trio.sleep(15.9)
        assert stage.heard(ChildCrashed) == []
        await trio.sleep(1)
        (report,) = stage.heard(ChildCrashed)
        assert isinstance(report.error, Hung)
        assert report.at == 16.0
        assert supervisor.which_children()[0].state is State.RUNNING


async def test_s81_cleanup_that_waits_has_its_own_deadline_inside_the_shutdown_time(stage):
    ended = []

    async def closes_politely(*, task_status):
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(3.0, shield=True):
                await trio.sleep_forever()  # The other side never answers our goodbye.
            ended.append(trio.current_time())

    async with stage.running(stage.spec((ChildSpec("a", closes_politely),))):
        pass
    assert ended == [3.0]


@pytest.mark.trio(run=trio.run)  # Processes and threads know no virtual time.
async def test_s82_what_a_child_owns_dies_with_it(stage):
    closed, released = [], threading.Event()
    limiter = trio.CapacityLimiter(2)

    async def numbers():
        try:
            while True:
                yield await trio.sleep(1)
        finally:
            closed.append("generator")

    async def owner(*, task_status):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(trio.run_process, ["sleep", "1000"])
            task_status.started(process)
            for _ in range(4):
                nursery.start_soon(abandon)
            async for _ in numbers():
                pass

    async def abandon():
        await trio.to_thread.run_sync(released.wait, abandon_on_cancel=True, limiter=limiter)

    async with stage.running(stage.spec()) as supervisor:
        process = await supervisor.start_child(ChildSpec("a", owner))
        await trio.testing.wait_all_tasks_blocked()
        await supervisor.stop_child("a")
        assert process.returncode is not None
        assert limiter.borrowed_tokens == 2, "abandoned threads are counted, and never more"
        released.set()
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()
    assert closed == ["generator"]


async def test_s83_a_bug_in_the_supervisor_itself_fails_at_once_and_leaves_nothing_running(
    stage, monkeypatch
):
    def buggy(*_):
        raise ZeroDivisionError("a bug of ours")

    nested = child_supervisor("sub", stage.spec("x y"), shutdown_s=1.0)
    async with stage.running(stage.spec((stage.child("a"), nested))) as supervisor:
        sub = supervisor.find("sub")
        monkeypatch.setattr(sub._engine.machine, "exited", buggy)
        await stage.crash("x")
        await trio.sleep(1)
        (report,) = (report for report in stage.heard(ChildCrashed) if report.path == "sub")
        assert isinstance(report.error, ZeroDivisionError)
        assert stage.read() == "+a +x +y !x -y +x +y"


async def test_s83_whoever_waits_for_an_answer_when_a_bug_strikes_is_refused(stage, monkeypatch):
    def buggy(*_):
        raise ZeroDivisionError("a bug of ours")

    stage.role("b").start_s = 5.0
    refused = []

    async def caller():
        with pytest.raises(SupervisorStopped):
            await supervisor.start_child(stage.child("b"))
        refused.append("b")

    async with stage.running(stage.spec("a")) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        await trio.sleep(1)
        monkeypatch.setattr(supervisor._engine.machine, "exited", buggy)
        await stage.crash("a")
    assert refused == ["b"]
    assert isinstance(stage.verdict, ZeroDivisionError)


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


HOSTILE = {
    "its text raises": UnspeakableError(),
    "100 MB of text": ValueError("x" * 100_000_000),
    "a group of a thousand": ExceptionGroup("many", [ValueError("y" * 1000)] * 1000),
}


@pytest.mark.parametrize("error", HOSTILE.values(), ids=HOSTILE)
async def test_s84_a_hostile_exception_is_reported_briefly_and_survived(stage, error):
    async with stage.running(stage.spec("a")) as supervisor:
        await stage.end("a", error)
        await trio.sleep(1)
        assert len(stage.heard(ChildCrashed)[0].error_text) <= TEXT_MAX
        assert len(supervisor.snapshot().find("a").last_error) <= TEXT_MAX
        assert supervisor.which_children()[0].state is State.RUNNING


def test_s84_a_group_ten_thousand_levels_deep_is_no_problem():
    error = ValueError("at the bottom")
    for _ in range(10_000):
        error = ExceptionGroup("level", [error])
    assert classify(error, cancelled=False).kind is ABNORMAL
    assert brief(error) == "ExceptionGroup of ValueError: at the bottom"
    while isinstance(error, ExceptionGroup):  # Taken apart by hand: deallocation recurses.
        (error,) = error.exceptions


async def test_s85_a_restarted_child_inherits_nothing_from_its_predecessors_context(stage):
    message, seen = contextvars.ContextVar("message", default=None), []

    async def handles(*, task_status):
        seen.append(message.get())
        message.set("the one that crashes")
        task_status.started()
        await trio.sleep(1)
        raise ValueError("crash")

    async with stage.running(stage.spec((ChildSpec("a", handles),))) as supervisor:
        await trio.sleep(1.5)
        message.set("the caller's")
        await supervisor.start_child(ChildSpec("b", handles))
    assert seen == [None, None, None]


async def test_s45_the_text_of_the_end_names_supervisor_limit_and_cause(stage):
    async with stage.running(stage.spec("a", intensity=0)):
        await stage.crash("a")
    assert isinstance(stage.verdict, MaxRestartsExceeded)
    assert str(stage.verdict) == (
        "supervisor '/' gave up: more than 0 restarts in 60 s; last failure: ValueError: a"
    )
