"""The edge of the process: signals, exit codes, unkillable and hung children. Each test is a process of its own."""

import os
import signal
import subprocess
import sys
import time
from textwrap import dedent

import pytest

PRELUDE = """
import math, os, signal, sys, threading, time
import trio
from supervisors import *

async def idle(name="idle", *, task_status):
    task_status.started()
    print("+" + name, flush=True)
    try:
        await trio.sleep_forever()
    finally:
        print("-" + name, flush=True)

async def raises(error, *, task_status):
    task_status.started()
    await trio.sleep(0.01)
    raise error

def tell(report):
    print(type(report).__name__, report.path, getattr(report, "code", ""), flush=True)
    if isinstance(report, ProcessEnding):
        print(*report.chain, sep="\\n", flush=True)

def tree(*children, **spec):
    return SupervisorSpec((ChildSpec("idle", idle), *children), **spec)

QUICK = Backoff(0.0, 0.0, jitter=0.0)
"""


def start(program):
    # A new session, so that no signal of ours reaches the test run.
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def finish(process, within_s=20.0):
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out, err


def run(program):
    return finish(start(program))


def signal_when(process, line, *numbers):
    """Send signals once the process has printed a line."""
    for heard in process.stdout:
        if heard.strip() == line:
            break
    for number in numbers:
        time.sleep(0.2)  # Let the one before be heard, and the line's writer go on.
        process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_s74_s76_a_signal_stops_the_tree_in_order(number):
    process = start("""
        sys.exit(run(tree(ChildSpec("b", idle, args=("b",)))))
    """)
    signal_when(process, "+b", number)
    code, out, err = finish(process)
    assert code == {signal.SIGTERM: 0, signal.SIGINT: 130}[number]
    assert (out, err) == ("-b\n-idle\n", "")


def test_s76_sigterm_stops_a_tree_that_is_still_starting():
    process = start("""
        async def link(*, task_status):
            print("waiting", flush=True)
            await trio.sleep_forever()

        sys.exit(run(tree(ChildSpec("link", link, start_timeout_s=math.inf))))
    """)
    signal_when(process, "waiting", signal.SIGTERM)
    assert finish(process)[:2] == (0, "-idle\n")


@pytest.mark.slow
def test_s76_a_second_sigterm_shortens_the_shutdown_times():
    process = start("""
        async def slow(*, task_status):
            task_status.started()
            print("+slow", flush=True)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1000)

        import supervisors.child
        supervisors.child.UNKILLABLE_AFTER_S = 0.1
        sys.exit(run(tree(ChildSpec("slow", slow, shutdown_s=500)), on_report=tell))
    """)
    signal_when(process, "+slow", signal.SIGTERM, signal.SIGTERM)
    code, out, _ = finish(process, within_s=10)
    assert code == 70
    assert "ChildUnkillable slow" in out


@pytest.mark.slow
def test_s57_a_stop_that_outlasts_its_grace_ends_the_process_with_70_and_its_stacks():
    process = start("""
        async def slow(*, task_status):
            task_status.started()
            print("+slow", flush=True)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1000)

        sys.exit(run(tree(ChildSpec("slow", slow, shutdown_s=500)), on_report=tell, grace_s=0.3))
    """)
    signal_when(process, "+slow", signal.SIGTERM)
    code, out, err = finish(process, within_s=10)
    assert code == 70
    assert out.splitlines()[-2:] == ["ProcessEnding / 70", ""]
    assert "all stacks follow" in err


def test_s74_a_keyboard_interrupt_inside_a_child_ends_with_130():
    code, out, err = run("""
        sys.exit(run(tree(ChildSpec("a", raises, args=(KeyboardInterrupt(),)))))
    """)
    assert (code, out, err) == (130, "+idle\n-idle\n", "")


def test_s74_without_run_a_keyboard_interrupt_stops_in_order_too():
    process = start("""
        async def slow(*, task_status):
            try:
                await idle("b", task_status=task_status)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.2)
                print("-slow", flush=True)

        try:
            trio.run(supervise, tree(ChildSpec("slow", slow)))
        except BaseException as end:
            print(type(end).__name__)
    """)
    signal_when(process, "+b", signal.SIGINT)
    assert finish(process)[1] == "-b\n-slow\n-idle\nKeyboardInterrupt\n"


@pytest.mark.parametrize(
    ("error", "code"), [("SystemExit(3)", 3), ("SystemExit()", 0), ("SystemExit('bye')", 1)]
)
def test_s75_the_code_of_a_system_exit_is_kept_from_any_depth(error, code):
    inner = f'SupervisorSpec((ChildSpec("a", raises, args=({error},)),))'
    ended = run(f'sys.exit(run(tree(child_supervisor("sub", {inner}))))')
    assert ended[0] == code
    assert ended[1] == "+idle\n-idle\n"
    assert "Traceback" not in ended[2]


def test_s75_a_system_exit_inside_a_group_keeps_its_code():
    code, _, err = run("""
        group = ExceptionGroup("g", [ValueError()])
        error = BaseExceptionGroup("outer", [group, BaseExceptionGroup("g", [SystemExit(4)])])
        sys.exit(run(tree(ChildSpec("a", raises, args=(error,)))))
    """)
    assert (code, err) == (4, "")


def test_s45_giving_up_ends_with_1_and_the_last_report_tells_the_whole_chain():
    code, out, _ = run("""
        leaf = ChildSpec("leaf", raises, args=(ValueError("the origin"),))
        sub = SupervisorSpec((leaf,), intensity=1, backoff=QUICK)
        sys.exit(run(tree(child_supervisor("sub", sub), intensity=0), on_report=tell))
    """)
    assert code == 1
    origin = "ValueError: the origin"
    inner = (
        "MaxRestartsExceeded: supervisor 'sub' gave up: more than 1 restarts in 5 s;"
        f" last failure: {origin}"
    )
    outer = (
        "MaxRestartsExceeded: supervisor '/' gave up: more than 0 restarts in 5 s;"
        f" last failure: {inner}"
    )
    assert out.splitlines()[-4:] == ["ProcessEnding / 1", outer, inner, origin]


def test_s02_a_failed_start_ends_with_1():
    code, out, _ = run("""
        async def no(*, task_status):
            raise ValueError("no")

        sys.exit(run(tree(ChildSpec("a", no)), on_report=tell))
    """)
    assert code == 1
    assert out.splitlines()[-3:] == [
        "ProcessEnding / 1",
        "StartFailed: child 'a' did not start: ValueError: no",
        "ValueError: no",
    ]


@pytest.mark.slow
def test_s52_an_unkillable_child_ends_the_process_with_70_and_its_stack():
    process = start("""
        import supervisors.child
        supervisors.child.UNKILLABLE_AFTER_S = 0.2

        async def stubborn(*, task_status):
            task_status.started()
            print("+stubborn", flush=True)
            while True:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1000)

        def show(report):
            tell(report)
            if isinstance(report, ChildUnkillable):
                print(report.stack)

        sub = SupervisorSpec((ChildSpec("a", idle, args=("a",)),
                              ChildSpec("s", stubborn, shutdown_s=0.1)))
        sys.exit(run(tree(child_supervisor("sub", sub)), on_report=show))
    """)
    signal_when(process, "+stubborn", signal.SIGTERM)
    code, out, err = finish(process)
    assert code == 70
    assert "await trio.sleep(1000)" in out or "in stubborn" in out
    assert out.index("-a") < out.index("-idle"), "the rest was stopped, in order"
    assert "ProcessEnding / 70" in out
    assert "ending the process with 70" in err


def test_s77_memory_that_runs_out_twice_ends_with_71_and_one_line():
    code, _, err = run("""
        sys.exit(run(tree(ChildSpec("a", raises, args=(MemoryError(),)), intensity=5, backoff=QUICK)))
    """)
    assert (code, err) == (71, "out of memory: ending the process with 71\n")


def test_s80_a_loop_that_stands_still_shows_its_stacks_and_ends_with_70():
    code, _, err = run("""
        async def spins(*, task_status):
            task_status.started()
            await trio.sleep(0.1)
            while True:
                pass

        watchdog = Watchdog(dump_after_s=0.2, exit_after_s=0.6, check_every_s=0.05)
        sys.exit(run(tree(ChildSpec("a", spins)), watchdog=watchdog))
    """)
    assert code == 70
    assert "in spins" in err
    assert err.index("has stood still") < err.index("ending the process")


@pytest.mark.slow
def test_s80_code_that_holds_the_gil_is_ended_too():
    code, _, err = run("""
        import re

        async def backtracks(*, task_status):
            task_status.started()
            await trio.sleep(0.1)
            re.match("(a+)+b", "a" * 60)

        watchdog = Watchdog(dump_after_s=0.2, exit_after_s=0.4, check_every_s=0.05)
        sys.exit(run(tree(ChildSpec("a", backtracks)), watchdog=watchdog))
    """)
    assert code == -signal.SIGPROF
    assert "in backtracks" in err


@pytest.mark.slow
def test_s80_a_pause_of_the_whole_process_is_no_hang():
    process = start("""
        watchdog = Watchdog(dump_after_s=0.2, exit_after_s=0.4, check_every_s=0.05)
        sys.exit(run(tree(), watchdog=watchdog))
    """)
    signal_when(process, "+idle", signal.SIGSTOP)
    time.sleep(1.0)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (0, "-idle\n", "")


@pytest.mark.parametrize("where", ["at start", "later"])
def test_s90_a_configuration_fault_is_never_restarted_and_ends_with_78(where):
    code, out, err = run(f"""
        class AuthError(Exception):
            pass

        async def login(*, task_status):
            if {where == "later"}:
                task_status.started()
            raise AuthError("wrong password")

        sub = SupervisorSpec((ChildSpec("login", login),), intensity=5, period_s=60)
        sys.exit(run(tree(child_supervisor("sub", sub)), never_restart=(AuthError,), on_report=tell))
    """)
    assert code == 78
    assert "RestartScheduled" not in out
    assert out.splitlines()[-2:] == ["ProcessEnding / 78", "AuthError: wrong password"]
    assert err == ""


def test_s90_a_spec_that_cannot_work_ends_with_78_before_anything_starts():
    code, out, _ = run("""
        sys.exit(run(tree(ChildSpec("idle", idle)), on_report=tell))
    """)
    assert code == 78
    assert out.splitlines() == [
        "ProcessEnding / 78",
        "ConfigError: child 'idle': the id is used twice; ids are unique in a supervisor",
    ]


def test_s59_work_that_is_done_ends_the_process_with_0():
    code, out, _ = run("""
        async def work(*, task_status):
            task_status.started()

        job = ChildSpec("job", work, restart=Restart.TRANSIENT, significant=True)
        sys.exit(run(tree(job, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)))
    """)
    assert (code, out) == (0, "+idle\n-idle\n")
