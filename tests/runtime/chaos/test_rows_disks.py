"""Rows about disks: a power cut costs nothing with every append synced, and orders without; a full disk is got over."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.chaos import campaign
from runtime.chaos.campaign import run_row
from runtime.chaos.disks import POWER_TOOLS, SLOW_TOOLS, SMALL_TOOLS, SYNCS
from runtime.chaos.outcome import Ending, Outcome
from runtime.chaos.row import Options
from runtime.chaos.rows import disks
from runtime.chaos.tools import missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROWS = {row.id: replace(row, pause_s=(0.5, 1.0)) for row in disks.ROWS}
RunCampaign = Callable[..., Awaitable[Outcome]]


def needs(tools: Sequence[str]) -> pytest.MarkDecorator:
    lacks = missing(tools)
    return pytest.mark.skipif(bool(lacks), reason=lacks or "nothing")


@pytest.fixture(autouse=True)
def _short_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "LASTS_S", (1.0, 1.0))
    monkeypatch.setattr(disks, "SINCE_SYNC_S", (1.0, 1.0))


@needs(POWER_TOOLS)
async def test_a_power_cut_of_the_only_broker_loses_no_accepted_order(
    run_campaign: RunCampaign,
) -> None:
    outcome = await run_campaign(ROWS["F14"], faults=1)
    assert outcome.ending is not Ending.FAILED, outcome.reasons
    assert (outcome.fired, outcome.lost, outcome.double_charged) == (1, 0, 0)
    assert outcome.accepted > 20


@needs(POWER_TOOLS)
async def test_control_c1_without_sync_always_a_power_cut_loses_orders_and_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "QUIET_S", 2.0)  # What is lost will never be terminal.
    options = Options(tmp_path / "run", faults=1, seed=4, sync_interval="2m")
    outcome = await run_row(ROWS["F14"], options)
    assert outcome.ending is Ending.FAILED
    assert outcome.lost > 0
    assert outcome.reasons[0] == f"{outcome.lost} lost"


@needs(SMALL_TOOLS + SLOW_TOOLS)
async def test_a_full_disk_and_failing_syncs_are_got_over_and_what_did_not_happen_is_not_counted(
    run_campaign: RunCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "SICK_S", 5.0)
    never_called = "link"
    strikes = (
        disks.fill(disks.every_one),
        disks.fail_calls(SYNCS),
        disks.fail_calls(never_called),
    )
    outcome = await run_campaign(replace(ROWS["F16"], strikes=strikes), faults=3)
    assert (outcome.lost, outcome.double_charged, outcome.fired) == (0, 0, 2)
    assert outcome.ending is Ending.UNKNOWN
    assert outcome.reasons[0] == "only 2 of 3 planned faults happened"
    assert "EIO in link of broker-1 did not happen: no such call was made" in outcome.notes
