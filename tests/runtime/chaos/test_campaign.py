"""Campaigns on real processes: they pass where the promise holds, and only if it was put to the test."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from runtime.chaos.outcome import Ending, Outcome
from runtime.chaos.row import NotFiredError, Row, Strike
from runtime.chaos.rows import all_rows
from runtime.chaos.stage import Stage

RunCampaign = Callable[..., Awaitable[Outcome]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def never_strikes(stage: Stage) -> None:
    async with stage.fault("nothing"):
        pass


async def cannot_strike(stage: Stage) -> None:
    async with stage.fault("nothing, after all") as fault:
        fault.struck()
        raise NotFiredError("there was nothing to break")


async def strikes(stage: Stage) -> None:
    async with stage.fault("no more than said") as fault:
        fault.struck()


async def charges_twice(stage: Stage) -> None:
    """The provider books a charge that it has booked before."""
    ledger = stage.gateway.ledger_file
    with ledger.open("r+b") as lines:
        first = lines.readline()
        lines.seek(0, os.SEEK_END)
        lines.write(first)


def row_of(*broken: Strike, judge: Strike | None = None) -> Row:
    return Row("F0", "a test", goal="", strikes=broken, pause_s=(0.0, 0.1), judge=judge)


async def test_a_run_whose_faults_did_not_happen_is_unknown_however_well_it_went(
    run_campaign: RunCampaign,
) -> None:
    outcome = await run_campaign(row_of(never_strikes, cannot_strike), faults=2)
    assert outcome.ending is Ending.UNKNOWN
    assert outcome.reasons[0] == "only 0 of 2 planned faults happened"
    assert outcome.accepted > 0
    assert "nothing did not happen" in outcome.notes
    assert "nothing, after all did not happen: there was nothing to break" in outcome.notes


async def test_a_charge_booked_twice_fails_the_run(run_campaign: RunCampaign) -> None:
    outcome = await run_campaign(row_of(strikes, judge=charges_twice), faults=1)
    assert outcome.ending is Ending.FAILED
    assert outcome.double_charged == 1
    assert outcome.reasons[0] == "1 charged twice"


async def test_an_instance_killed_under_load_loses_nothing(run_campaign: RunCampaign) -> None:
    row = replace(all_rows()["F1"], pause_s=(0.5, 1.5))
    outcome = await run_campaign(row, faults=3)
    # So short a run need not see every kind of request succeed: it may be unknown.
    assert outcome.ending is not Ending.FAILED, outcome.reasons
    assert (outcome.fired, outcome.lost, outcome.double_charged) == (3, 0, 0)
    assert outcome.accepted > 0
    assert len(outcome.recoveries_s) == 3
    assert min(outcome.recoveries_s) > 0


async def test_of_three_brokers_one_may_be_killed_and_nothing_is_lost(
    run_campaign: RunCampaign,
) -> None:
    row = replace(all_rows()["F6"], pause_s=(0.5, 1.0))
    outcome = await run_campaign(row, faults=2, brokers=3)
    assert outcome.ending is not Ending.FAILED, outcome.reasons
    assert (outcome.fired, outcome.lost, outcome.double_charged) == (2, 0, 0)
    assert outcome.accepted > 20


async def test_nothing_of_a_campaign_runs_on_when_it_is_broken_off(
    run_campaign: RunCampaign,
) -> None:
    pids: list[int] = []

    async def break_off(stage: Stage) -> None:
        brokers = [broker.process.pid for broker in stage.brokers.all]
        pids.extend([*brokers, stage.gateway.process.pid, stage.instance.process.pid])
        scope.cancel()
        await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        await run_campaign(row_of(break_off), faults=1)
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
