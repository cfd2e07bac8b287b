"""Rows about the network: the named partitions cut what they say, and the system gets over them."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from runtime.chaos.hosts import hosts_missing
from runtime.chaos.nets import apart
from runtime.chaos.outcome import Ending, Outcome
from runtime.chaos.rows import nets
from runtime.chaos.stage import Stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(hosts_missing()), reason=hosts_missing() or "nothing"),
]

ROWS = {row.id: replace(row, pause_s=(0.5, 1.0)) for row in nets.ROWS}
RunCampaign = Callable[..., Awaitable[Outcome]]


async def test_partitions_cost_nothing_and_one_that_stops_nothing_is_not_counted(
    run_campaign: RunCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def between_strangers(stage: Stage) -> None:
        gateway, [broker] = stage.setting.gateway_host, stage.brokers.all
        await nets._cut(stage, "no cable", apart([gateway], [broker.host]), 0.0)

    monkeypatch.setattr(nets, "LASTS_S", (1.5, 1.5))
    monkeypatch.setattr(nets, "SEEN_S", 3.0)
    strikes = (nets.partition, nets.partition, between_strangers)  # From the broker, the provider.
    outcome = await run_campaign(replace(ROWS["F10"], strikes=strikes), faults=3)
    assert (outcome.lost, outcome.double_charged, outcome.fired) == (0, 0, 2)
    assert outcome.ending is Ending.UNKNOWN
    assert outcome.reasons[0] == "only 2 of 3 planned faults happened"
    assert "no cable did not happen: nothing went that way" in outcome.notes
