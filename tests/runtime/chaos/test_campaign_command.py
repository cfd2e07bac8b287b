"""`orders chaos` as one types it; what it runs is tested elsewhere."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runtime.chaos.outcome import Ending, Outcome
from runtime.chaos.row import Options, Row
from runtime.chaos.rows import all_rows
from runtime.cli import app
from runtime.commands import chaos as command


def orders(*args: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["chaos", *args])


def test_the_list_shows_every_row_with_its_goal() -> None:
    listed = orders("--list")
    assert listed.exit_code == 0
    for row in all_rows().values():
        assert row.id in listed.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "give --row"),
        (("--row", "F1", "--all"), "give --row"),
        (("--row", "F99"), "no row F99; there are: F1"),
        (("--row", "F1", "--brokers", "2"), "write 1 or 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(
    args: tuple[str, ...], message: str
) -> None:
    refused = orders(*args)
    assert refused.exit_code == 2
    assert message in " ".join(refused.output.split())


def test_every_row_can_be_run_somewhere_and_says_what_it_is_for() -> None:
    for row_id, row in all_rows().items():
        assert row.id == row_id
        assert row.name
        assert row.goal
        assert row.brokers
        assert row.brokers <= {1, 3}
        assert row.strikes or row.run


def test_a_row_that_lacks_something_is_unknown_and_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("F0", "a test", goal="", missing=lambda: "frobnicate is missing: apt-get install it")
    code = command.chaos([row], Options(tmp_path), keep=True, as_json=True)
    [told] = json.loads(capsys.readouterr().out)["rows"]
    assert code == command.EXIT_UNKNOWN
    assert told["ending"] == "unknown"
    assert told["reasons"] == ["not run: frobnicate is missing: apt-get install it"]


@pytest.mark.parametrize(
    ("endings", "code"),
    [
        ([Ending.PASSED], 0),
        ([Ending.PASSED, Ending.UNKNOWN], 3),
        ([Ending.UNKNOWN, Ending.FAILED, Ending.PASSED], 1),
    ],
)
def test_the_worst_row_decides_the_exit_code(endings: list[Ending], code: int) -> None:
    outcomes = [Outcome("F0", "", "", 1, 0, 1, ending=ending) for ending in endings]
    assert command.exit_code(outcomes) == code
