"""The row about streams that are deleted or closed to us: it passes, and it catches an instance that goes on."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from runtime.chaos.outcome import Ending, Outcome
from runtime.chaos.rows import all_rows, streams
from runtime.jetstream_api import Api

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

RunCampaign = Callable[..., Awaitable[Outcome]]


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CLOSED_FOR_S", 1.0)


async def nothing(_: Api) -> None:
    """No harm at all: the instance goes on."""


async def test_revoked_credentials_close_the_instance_until_they_are_given_back(
    run_campaign: RunCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm = "credentials are revoked"
    monkeypatch.setattr(streams, "HARMS", {harm: streams.HARMS[harm]})
    outcome = await run_campaign(all_rows()["F25"], faults=1)
    assert outcome.ending is not Ending.FAILED, outcome.reasons
    assert outcome.fired == 1
    assert any(note.startswith("closed after p50 ") for note in outcome.notes)


async def test_an_instance_that_goes_on_as_if_nothing_had_happened_is_caught(
    run_campaign: RunCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("CLOSED_WITHIN_S", "ENDED_WITHIN_S", "READY_S"):
        monkeypatch.setattr(streams, limit, 2.0)
    ignored = partial(streams._lose, nothing, "ORDERS")
    monkeypatch.setattr(streams, "HARMS", {"ignored": ignored})
    outcome = await run_campaign(all_rows()["F25"], faults=1)
    assert outcome.ending is Ending.FAILED
    said = "; ".join(outcome.reasons)
    assert "ignored: not closed within 2 s" in said
    assert "was accepted when it was closed" in said
    assert "ignored: it ended with None, not 78" in said
