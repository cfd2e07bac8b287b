"""The rows about the wire, cut short: their faults happen, are counted, and cost nobody anything."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from runtime.chaos.conversation import Part
from runtime.chaos.outcome import Ending, Outcome
from runtime.chaos.proxy import EveryNth, Fate
from runtime.chaos.rows import all_rows, wire
from runtime.chaos.stage import Stage

RunCampaign = Callable[..., Awaitable[Outcome]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LASTS_S", 1.0)


async def never_passes(stage: Stage) -> None:
    rule = EveryNth(10**9, Part.DELIVERY, Fate())
    await wire._under(stage, "what never passes", wire.WIRES.brokers, rule)


async def test_lost_answers_and_doubled_messages_cost_nobody_anything(
    run_campaign: RunCampaign,
) -> None:
    lost, doubled = all_rows()["F13"].strikes, all_rows()["F12P"].strikes
    row = replace(
        all_rows()["F13"], strikes=(*lost[:2], doubled[0], never_passes), pause_s=(0.1, 0.2)
    )
    outcome = await run_campaign(row, faults=4)
    assert outcome.ending is Ending.UNKNOWN, "one of the faults did not happen"
    assert outcome.reasons[0] == "only 3 of 4 planned faults happened", (
        "an invariant that so few seconds left undecided may follow"
    )
    assert (outcome.fired, outcome.lost, outcome.double_charged) == (3, 0, 0)
    counts = dict(note.rsplit(": ", 1) for note in outcome.notes if ": " in note)
    assert int(counts["answer of the provider: lost"]) > 0
    assert int(counts["delivery: lost"]) > 0
    assert int(counts["messages to us: doubled"]) > 0
