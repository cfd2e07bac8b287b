"""Some two thousand seeds: orders, faults, recoveries, and no invariant broken."""

import pytest
import trio

from runtime.explore import Summary, explore, play, run_schedule, run_seed
from runtime.explore.judge import ENDLESS
from runtime.explore.schedule import Fault, Kind, Order, Schedule, When
from runtime.tail import Tail

PARTS = 8
SEEDS_A_PART = 250
RARE = {
    "a supervisor gave up, and the process with it",
    "a record was delivered twice during a call",
    "an order needed attention",
    "a deadline passed",
}
"""In a few hundred seeds these may not be met."""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_every_invariant_holds(part: int) -> None:
    summary = explore(range(part * SEEDS_A_PART, (part + 1) * SEEDS_A_PART))
    assert [f"{one.schedule}\n{one.findings}" for one in summary.failures] == []
    assert summary.seeds == SEEDS_A_PART
    assert RARE.issuperset(summary.never_seen)
    print(f"seeds {summary.seeds}, orders {summary.orders}, faults {summary.fired.total()}")


def test_what_was_never_met_is_said() -> None:
    summary = explore(range(1))
    assert isinstance(summary, Summary)
    assert "a supervisor gave up, and the process with it" in summary.never_seen


def test_in_two_processes_the_same_is_found_as_in_one() -> None:
    alone, together = explore(range(24)), explore(range(24), jobs=2)
    assert (alone.seen, alone.fired, alone.checked) == (
        together.seen,
        together.fired,
        together.checked,
    )
    assert alone.seeds == together.seeds == 24


def test_after_its_time_no_new_seed_is_begun() -> None:
    assert explore(range(10_000_000), jobs=2, limit_s=0.0).seeds == 0


def test_without_faults_everybody_gets_what_the_card_and_the_shelf_allow() -> None:
    orders = (
        Order("ok", 0, (("a", 2), ("b", 1))),
        Order("declined", 0, (("a", 1),), token="tok_declined"),
        Order("sold-out", 0, (("d", 3),)),
        Order("too-late", 0, (("a", 1),), cancel_ms=2_000),
        Order("again", 0, (("a", 1),), again_ms=(0, 10, 5_000), clash_ms=20),
    )
    outcome = run_schedule(Schedule(1, orders=orders))
    assert outcome.findings == ()
    assert outcome.seen["an order was confirmed"] == 3
    assert outcome.seen["an order was rejected"] == 2
    assert outcome.seen["a cancel came too late"] == 1
    assert outcome.seen["another body under a known id was refused"] == 1


@pytest.mark.parametrize("at", range(8, 24))
def test_a_delivery_that_is_late_to_the_very_last_is_waited_for(at: int) -> None:
    late = Fault(Kind.LATE, When.DELIVERY, at, for_ms=20_000)
    order = Order("o1", 0, (("a", 2), ("b", 1)))
    assert run_schedule(Schedule(1, orders=(order,), faults=(late,))).findings == ()


def test_a_dead_process_late_take_over_does_not_end_the_one_that_lives() -> None:
    late, kill = Fault(Kind.LATE, When.APPEND, 1, for_ms=2_500), Fault(Kind.KILL, When.MS, 100)
    orders = (Order("o1", 0, (("a", 2),)), Order("o2", 3_000, (("b", 1),)))
    outcome = run_schedule(Schedule(1, orders=orders, faults=(late, kill)))
    assert outcome.findings == ()
    assert outcome.seen["an append was refused after its client had given up"] == 1
    assert outcome.seen["a process was superseded by another"] == 0


def test_a_dead_process_late_claim_of_the_views_does_not_end_the_one_that_lives() -> None:
    late, kill = Fault(Kind.LATE, When.VIEWS, 1, for_ms=2_500), Fault(Kind.KILL, When.MS, 100)
    orders = (Order("o1", 0, (("a", 2),)), Order("o2", 3_000, (("b", 1),)))
    outcome = run_schedule(Schedule(1, orders=orders, faults=(late, kill)))
    assert outcome.findings == ()
    assert outcome.seen["a fence refused claim_views"] == 1
    assert outcome.seen["a process was superseded by another"] == 0


@pytest.mark.parametrize("seed", [26, 351, 1629, 1785, 2732, 201857, 2646])
def test_while_two_processes_overlap_what_was_accepted_is_found(seed: int) -> None:
    assert run_seed(seed).findings == ()


def test_a_pause_outlasts_a_restart_by_as_much_as_the_clock_was_set_back() -> None:
    outcome = run_seed(6380)
    assert outcome.findings == ()
    assert outcome.virtual_s > 3_600


def test_a_run_that_goes_on_without_time_passing_is_broken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def spin(_: object) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Tail, "_follow", spin)
    monkeypatch.setattr(play, "ROUNDS_MAX", 5_000)
    outcome = run_schedule(Schedule(1, orders=(Order("o1", 0, (("a", 2),)),)))
    assert outcome.findings[0].invariant == ENDLESS
    assert outcome.virtual_s < 1


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_fault_comes_when_its_number_is_up(kind: Kind) -> None:
    target = {Kind.CRASH: "order.0", Kind.RAISE: "order.0 shard.before-append"}.get(kind, "")
    fault = Fault(kind, When.APPEND, 12, for_ms=300, target=target)
    outcome = run_schedule(Schedule(1, orders=(Order("o1", 0, (("a", 2),)),), faults=(fault,)))
    assert outcome.fired == {kind: 1}
    assert outcome.findings == ()
