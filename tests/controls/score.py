"""Prints how many planted bugs are caught, and by what (`make controls`). Exits with 1 below 15 of 15."""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parents[1]
PLANTED = 15
NUMBERED = re.compile(r"test_control_c(\d+)_|test_control_.*\[C(\d+) ")


class Score:
    """A pytest plugin: runs the tests of planted bugs, and keeps what came of each."""

    def __init__(self) -> None:
        self.outcomes: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if number_of(item.name)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        number = number_of(report.nodeid)
        if number and (report.when == "call" or report.outcome != "passed"):
            self.outcomes[number].append((report.outcome, report.nodeid.rpartition("::")[2]))

    def caught(self, number: int) -> bool:
        return {outcome for outcome, _ in self.outcomes[number]} == {"passed"}


def number_of(name: str) -> int:
    found = NUMBERED.search(name)
    return int(found[1] or found[2]) if found else 0


def main() -> int:
    score = Score()
    pytest.main([str(TESTS), "-p", "no:cacheprovider"], plugins=[score])
    table = Table("control", "caught", "by")
    for number in range(1, PLANTED + 1):
        outcomes = score.outcomes[number] or [("no test", "")]
        said = "yes" if score.caught(number) else ", ".join(outcome for outcome, _ in outcomes)
        table.add_row(f"C{number}", said, "\n".join(name for _, name in outcomes))
    console = Console(soft_wrap=not sys.stdout.isatty())
    console.print(table)
    caught = sum(score.caught(number) for number in range(1, PLANTED + 1))
    console.print(f"{caught}/{PLANTED} planted bugs are caught")
    return 0 if caught == PLANTED else 1


if __name__ == "__main__":
    sys.exit(main())
