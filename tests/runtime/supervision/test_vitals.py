"""What is seen of a running instance, and why it is not ready."""

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from messages.routing import Routes
from runtime.clock import LogClock
from runtime.memory import MemoryLog
from runtime.recall import Address
from runtime.tail import Tail
from runtime.vitals import STALLED_AFTER_S, Vitals, describe, unready
from supervisors import Kind, Node, State, Strategy

NOW_S = 100.0
ORDER_0 = Address("order", 0)


def node(path: str, state: State = State.RUNNING, **more: Any) -> Node:
    return Node(path.rpartition("/")[2], path, Kind.WORKER, state, since=90.0, **more)


def tree(*children: Node, state: State = State.RUNNING) -> Node:
    core = node("core", strategy=Strategy.ONE_FOR_ONE, children=children)
    return Node("/", "/", Kind.SUPERVISOR, state, 80.0, children=(core, node("door")))


def busy(*, is_idle: bool = False, still_s: float = 0.0) -> Vitals:
    return Vitals(waiting=2, calls=1, is_idle=is_idle, progress_s=NOW_S - still_s)


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        (node("core/o.0"), None),
        (
            node("core/o.0", State.RESTARTING, until=100.4, last_error="ValueError: secret"),
            "core/o.0: restarting in 0.4 s after ValueError",
        ),
        (
            node("core/o.0", State.RESTARTING, last_error="ExceptionGroup of KeyError: a of b: c"),
            "core/o.0: restarting after KeyError",
        ),
        (node("core/o.0", State.STARTING), "core/o.0: starting"),
        (node("core/o.0", State.STOPPED), "core/o.0: stopped"),
        (
            node("core/o.0", State.ESCALATED, last_error="OSError"),
            "core/o.0: escalated after OSError",
        ),
        (node("core/o.0", State.WAITING), None),
        (node("core/admin", State.RESTARTING), None),
    ],
)
def test_a_child_that_does_not_run_is_a_reason_not_to_be_ready(
    child: Node, reason: str | None
) -> None:
    assert unready(tree(child), {}, NOW_S) == (() if reason is None else (reason,))


@pytest.mark.parametrize(
    ("vitals", "reasons"),
    [
        (busy(), ()),
        (busy(still_s=STALLED_AFTER_S), ()),
        (busy(still_s=7.0), ("core/o.0: no progress for 7.0 s",)),
        (busy(is_idle=True, still_s=3600.0), ()),
    ],
)
def test_a_shard_that_holds_something_and_does_not_get_on_is_a_reason(
    vitals: Vitals, reasons: tuple[str, ...]
) -> None:
    assert unready(tree(node("core/o.0")), {"o.0": vitals}, NOW_S) == reasons


async def test_a_tail_that_has_not_read_what_was_appended_here_is_behind(
    autojump_clock: MockClock,
) -> None:
    tail = Tail(MemoryLog(), Routes({}, {}), LogClock())
    assert tail.vitals(None).is_idle
    appended = Vitals(0, 0, is_idle=True, progress_s=trio.current_time(), seq=7)
    await trio.sleep(STALLED_AFTER_S)
    assert tail.vitals(appended).stalled_s(trio.current_time()) is None
    await trio.sleep(0.1)
    assert tail.vitals(appended).stalled_s(trio.current_time()) is not None
    tail.position = 7
    assert tail.vitals(appended).stalled_s(trio.current_time()) is None


def test_a_root_that_has_not_started_everything_is_not_ready_even_if_all_children_run() -> None:
    assert unready(tree(state=State.STARTING), {}, NOW_S) == ("/: starting",)


def test_a_node_is_described_with_all_that_is_known_of_it() -> None:
    told = {"restarts": 3, "restarts_in_window": 2, "intensity": 10, "last_error": "ValueError: x"}
    restarting = node("core/o.1", State.RESTARTING, until=100.25, **told)
    described = describe(tree(node("core/o.0"), restarting), {"o.0": busy(still_s=4.0)}, NOW_S)
    core = described["children"][0]
    assert (core["children_restarts_in_window"], core["children_intensity"]) == (2, 0)
    assert core["strategy"] == "one_for_one"
    assert core["children"][0] == {
        "id": "o.0",
        "path": "core/o.0",
        "kind": "worker",
        "state": "running",
        "since_s": 10.0,
        "restarts": 0,
        "restarts_in_window": 0,
        "intensity": 0,
        "mailbox_lag": 2,
        "calls_in_flight": 1,
        "last_progress_s": 4.0,
        "stalled": True,
    }
    assert core["children"][1] == {
        "id": "o.1",
        "path": "core/o.1",
        "kind": "worker",
        "state": "restarting",
        "since_s": 10.0,
        "backing_off_s": 0.25,
        **told,
    }


async def test_a_shard_that_waits_is_idle_however_long(
    shop: Any, autojump_clock: MockClock
) -> None:
    await trio.sleep(3600)
    vitals = shop.process.shard("order").vitals
    assert vitals.is_idle
    assert vitals.stalled_s(trio.current_time()) is None


async def test_a_shard_whose_append_hangs_does_not_get_on_and_shows_what_waits(
    shop: Any, autojump_clock: MockClock
) -> None:
    await trio.sleep(3600)  # Idle until now: that does not count.
    shop.process.log.before_append = _hang
    for number in range(20):
        await shop.process.shards.ask("order", f"o{number}", shop.order(f"o{number}"))
        await trio.sleep(0.01)
    await trio.sleep(STALLED_AFTER_S)
    vitals = shop.process.shard("order").vitals
    assert vitals.stalled_s(trio.current_time()) == pytest.approx(STALLED_AFTER_S, abs=0.3)
    assert vitals.waiting > 0


async def test_calls_under_way_are_counted(shop: Any, autojump_clock: MockClock) -> None:
    for number in range(5):
        await shop.place(f"o{number}", "tok_slow")
    await trio.sleep(1)
    assert shop.process.shard("payment").vitals.calls == 5
    await shop.wait_status("o4", "confirmed")
    assert shop.process.shard("payment").vitals.calls == 0


async def test_s65_the_tree_is_consistent_while_restarts_happen(
    shop: Any, autojump_clock: MockClock
) -> None:
    """Looked at a hundred times while shards crash: whoever runs has vitals, whoever does not has none."""
    rng = random.Random(7)
    addresses = list(shop.process.shards.addresses())
    seen = set()
    for _ in range(100):
        shop.process.crash(rng.choice(addresses))
        await trio.sleep(rng.uniform(0, 0.3))
        running = shop.process.shards.running()
        busy_now = {str(address): shard.vitals for address, shard in running.items()}
        root = shop.process.supervisor.snapshot()
        for child in root.find("actors").children:
            seen.add(child.state)
            described = describe(child, busy_now, trio.current_time())
            assert ("last_progress_s" in described) == (child.state is State.RUNNING), child
            assert ("backing_off_s" in described) <= (child.state is State.RESTARTING)
            if child.state is State.RESTARTING:
                assert any(child.path in said for said in unready(root, busy_now, 0.0))
    assert seen >= {State.RUNNING, State.RESTARTING}


async def _hang(_subject: str, _payload: bytes) -> None:
    await trio.sleep_forever()
