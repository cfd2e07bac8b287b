"""Campaigns for tests: short ones."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runtime.chaos.campaign import run_row
from runtime.chaos.outcome import Outcome
from runtime.chaos.row import Options, Row

RunCampaign = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def run_campaign(tmp_path: Path) -> RunCampaign:
    """Run a row with so many faults, on so many brokers; the same seed each time."""

    async def run(row: Row, faults: int, brokers: int = 1) -> Outcome:
        options = Options(tmp_path / "run", brokers=brokers, faults=faults, seed=4)
        return await run_row(row, options)

    return run
