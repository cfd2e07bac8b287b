"""Planted bugs in real processes: each turns red the row of faults that is named for it (`make controls`; minutes)."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.chaos import campaign, stage
from runtime.chaos.campaign import run_row
from runtime.chaos.outcome import Ending
from runtime.chaos.row import Options
from runtime.chaos.rows import all_rows

SITE = Path(__file__).with_name("site")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not os.environ.get("CONTROL_ROWS"), reason="`make controls` runs these"),
]


@pytest.mark.parametrize(
    ("bug", "row", "faults", "reason"),
    [
        pytest.param("C3", "F1", 6, "orders were still open", id="C3 in F1"),
        pytest.param("C5", "F7", 3, "I6", id="C5 in F7"),
        pytest.param("C6", "F5", 4, "I5", id="C6 in F5"),
        pytest.param("C7", "F7", 4, "I7", id="C7 in F7"),
        pytest.param("C8", "F1", 1, "I3", id="C8 in F1"),
        pytest.param("C10", "F1", 3, "I10", id="C10 in F1"),
        pytest.param("C12", "F18", 3, "I5", id="C12 in F18"),
        pytest.param("C15", "F1", 1, "I4", id="C15 in F1"),
    ],
)
async def test_control_turns_its_row_red(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bug: str,
    row: str,
    faults: int,
    reason: str,
) -> None:
    monkeypatch.setattr(campaign, "QUIET_S", 30.0)  # What is lost will never be terminal.
    monkeypatch.setattr(stage, "RECOVERY_S", 20.0)
    environ = {"PYTHONPATH": str(SITE), "PLANTED": bug}
    options = Options(tmp_path / "run", faults=faults, seed=4, environ=environ)
    outcome = await run_row(replace(all_rows()[row], pause_s=(1.0, 2.0)), options)
    assert outcome.ending is Ending.FAILED
    assert any(seen.startswith(reason) for seen in outcome.reasons), outcome.reasons
