"""The book of faults, what is read out of it, and what the rows judge by it; nothing runs here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors import ACTORS
from runtime.audit import Attempt, Op, Told
from runtime.chaos.campaign import staged
from runtime.chaos.row import NotFiredError, Options, Row, this_machine
from runtime.chaos.rows import actors, brokers, mixed
from runtime.chaos.stage import RECOVERY_S, Stage

ROW = Row("F0", "a test", goal="")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    options = Options(tmp_path)
    async with this_machine(options) as setting, staged(ROW, options, setting) as stage:
        yield stage


async def accept(stage: Stage, sent_after_s: float, takes_s: float) -> None:
    """Let an order be accepted that is sent after a while."""
    await trio.sleep(sent_after_s)
    sent_s = trio.current_time()
    await trio.sleep(takes_s)
    stage.load._sent_s.append(sent_s)
    stage.load.heard_s.append(trio.current_time())


async def test_recovery_counts_from_the_healing(stage: Stage, autojump_clock: MockClock) -> None:
    stage.nursery.start_soon(accept, stage, 11.0, 0.5)
    async with stage.fault("ten seconds of trouble") as fault:
        fault.struck()
        await trio.sleep(10)
    assert stage.recoveries_s == [pytest.approx(1.5, abs=0.02)]


async def test_or_from_the_strike_where_that_is_what_is_to_be_got_over(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.nursery.start_soon(accept, stage, 4.0, 0.5)
    async with stage.fault("ten seconds of trouble", from_strike=True) as fault:
        fault.struck()
        await trio.sleep(10)
    assert stage.recoveries_s == [pytest.approx(4.5, abs=0.02)]


async def test_what_was_asked_for_before_is_no_recovery(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.nursery.start_soon(accept, stage, 0.5, 1.0)
    stage.nursery.start_soon(accept, stage, 3.0, 1.0)
    await trio.sleep(1)
    async with stage.fault("a moment of trouble") as fault:
        fault.struck()
    assert stage.recoveries_s == [pytest.approx(3.0, abs=0.02)]


async def test_a_system_that_does_not_come_back_is_a_finding(
    stage: Stage, autojump_clock: MockClock
) -> None:
    async with stage.fault("the end") as fault:
        fault.struck()
    assert (stage.fired, stage.not_recovered, stage.recoveries_s) == (1, 1, [])
    assert stage.findings == [f"no order was accepted within {RECOVERY_S:g} s of: the end"]


async def test_a_fault_counts_once_it_has_struck_and_not_if_it_came_to_nothing(
    stage: Stage,
) -> None:
    async with stage.fault("never"):
        pass
    async with stage.fault("in vain") as fault:
        fault.struck()
        raise NotFiredError("nobody was there")
    assert (stage.fired, stage.marks()) == (0, [])
    assert stage.notes == ["never did not happen", "in vain did not happen: nobody was there"]


async def test_marks_say_when_it_struck_and_when_it_was_healed(
    stage: Stage, autojump_clock: MockClock
) -> None:
    stage.nursery.start_soon(accept, stage, 1.0, 0.0)
    async with stage.fault("trouble") as fault:
        fault.struck()
    [mark] = stage.marks()
    assert (mark.row, mark.name) == ("F0", "trouble")
    assert 0 < mark.at_ms <= mark.healed_ms


def placed(at_ms: int, code: int, took_ms: float) -> Attempt:
    told = Told.ACCEPTED if code == 202 else Told.UNKNOWN
    return Attempt(op=Op.PLACE, at_ms=at_ms, outcome=told, key="k", code=code, took_ms=took_ms)


@pytest.mark.parametrize(
    ("attempt", "finding"),
    [
        (placed(1_500, 503, 1_900.0), None),
        (placed(1_500, 202, 5.0), "k was accepted with no quorum: kill -9 all brokers"),
        (placed(1_500, 503, 3_000.0), "503 after 3000 ms with no quorum: kill -9 all brokers"),
        (placed(1_500, 0, 4_000.0), "no answer after 4000 ms with no quorum: kill -9 all brokers"),
        (placed(900, 202, 5.0), None),
        (placed(2_100, 202, 5.0), None),
    ],
)
async def test_without_a_quorum_nothing_may_be_accepted_and_everybody_is_told_in_time(
    stage: Stage, autojump_clock: MockClock, attempt: Attempt, finding: str | None
) -> None:
    stage.nursery.start_soon(accept, stage, 1.0, 0.0)
    async with stage.fault("no quorum: kill -9 all brokers") as fault:
        fault.struck()
    fault.at_ms, fault.healed_ms = 1_000, 2_000
    stage.load.attempts.append(attempt)
    await brokers.judge_answers(stage)
    assert stage.findings == ([finding] if finding else [])


def test_every_message_that_an_actor_hears_has_its_crash() -> None:
    assert {actor for actor, _ in actors.PAIRS} == set(ACTORS)
    assert len(actors.PAIRS) == len(set(actors.PAIRS)) >= 20
    assert actors.PROVOKED.keys() <= {fact for _, fact in actors.PAIRS}


def test_what_is_mixed_needs_no_ground_of_its_own() -> None:
    rows = [row for module in (brokers, actors) for row in module.ROWS if row.in_mix]
    assert all(row.setting is this_machine and row.wire is None for row in rows)
    assert all(mixed.kinds().values())
