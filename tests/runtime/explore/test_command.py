"""`orders explore`: what it prints, and what it exits with."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from actors import inventory
from runtime.cli import app

BROKEN, NEVER_SEEN = 1, 3


def explore(*options: str) -> Any:
    return CliRunner().invoke(app, ["explore", *options])


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sold stays reserved for ever."""
    monkeypatch.setattr(inventory, "_give_up", lambda *_, sold: inventory.NOTHING)


def test_a_few_seeds_are_summed_up_and_what_they_never_met_is_no_success() -> None:
    ended = explore("--seeds", "2", "--first", "40")
    assert ended.exit_code == NEVER_SEEN
    assert "2 from 40" in ended.output
    assert "never met" in ended.output


def test_the_figures_come_as_json_too() -> None:
    ended = explore("--seeds", "2", "--json")
    figures = json.loads(ended.stdout)
    assert (figures["first"], figures["seeds"], figures["failed"]) == (0, 2, [])
    assert figures["checked"]["I1"] == figures["orders"] > 0


@pytest.mark.usefixtures("planted")
def test_a_seed_that_fails_is_shown_with_its_schedule_and_the_command_that_replays_it() -> None:
    ended = explore("--seeds", "1")
    assert ended.exit_code == BROKEN
    assert "seed 0: " in ended.output
    assert "I4 a: " in ended.output
    assert "orders explore --replay 0 [--shrink]" in ended.output


def test_a_replay_tells_what_happened_line_by_line() -> None:
    ended = explore("--replay", "0")
    assert ended.exit_code == 0
    for word in ("FAULT", "LOG", "CLIENT", "LEDGER", "says OrderOpened", "every invariant holds"):
        assert word in ended.output


@pytest.mark.usefixtures("planted")
def test_a_failing_replay_is_cut_down_on_request() -> None:
    ended = explore("--replay", "0", "--shrink")
    assert ended.exit_code == BROKEN
    assert "the least that fails the same way" in ended.output
    assert ended.output.count("tok_") < 10
    assert "faults=()" in ended.output
