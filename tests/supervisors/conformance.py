"""Prints the conformance table: every item of `conformance.txt`, and what the tests that carry its number say.

`make conformance` runs it. It exits with 1 if an item has no test, or one that fails.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

FILE = Path(__file__).with_name("conformance.txt")
TESTS = Path(__file__).parents[1]
NUMBERED = re.compile(r"test_((?:s\d+_)+)")


@dataclass(frozen=True, slots=True)
class Item:
    number: int
    text: str
    deviation: str = ""


class Results:
    """A pytest plugin: runs the tests that carry a number, and keeps what came of them."""

    def __init__(self) -> None:
        self.passed: defaultdict[int, list[str]] = defaultdict(list)
        self.failed: defaultdict[int, list[str]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if numbers_of(item.name)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for number in numbers_of(report.nodeid.rpartition("::")[2]):
            if report.outcome != "passed":
                self.failed[number].append(report.nodeid)
            elif report.when == "call":
                self.passed[number].append(report.nodeid)

    def conforms(self, item: Item) -> bool:
        return bool(self.passed[item.number]) and not self.failed[item.number]

    def where(self, item: Item) -> str:
        """The files of an item's tests, and how many tests there are in each."""
        ids = self.passed[item.number] + self.failed[item.number]
        files = [Path(node_id.partition("::")[0]).name for node_id in ids]
        return (
            ", ".join(f"{file} ({files.count(file)})" for file in dict.fromkeys(files)) or "nowhere"
        )


def main() -> int:
    items = list(read_items(FILE.read_text()))
    results = Results()
    code = pytest.main([str(TESTS), "-p", "no:cacheprovider"], plugins=[results])
    console = Console(soft_wrap=not sys.stdout.isatty())
    console.print(table_of(items, results))
    conforming = sum(results.conforms(item) for item in items)
    deviations = ", ".join(f"S{item.number}" for item in items if item.deviation)
    console.print(f"{conforming}/{len(items)} items pass; deliberate deviations: {deviations}")
    return 0 if conforming == len(items) and code == pytest.ExitCode.OK else 1


def numbers_of(test_name: str) -> list[int]:
    found = NUMBERED.match(test_name)
    return [int(number) for number in re.findall(r"s(\d+)_", found[1])] if found else []


def read_items(text: str) -> Iterator[Item]:
    entries = re.findall(r"^S(\d+) +(.+)\n(?: +deviates: (.+)\n)?", text, re.MULTILINE)
    return (Item(int(number), said, deviation) for number, said, deviation in entries)


def table_of(items: list[Item], results: Results) -> Table:
    table = Table("item", "what is asked", "", "tested in", title="Supervision, item by item")
    for item in items:
        said = (
            f"{item.text}\n[dim]deviates: {item.deviation}[/dim]" if item.deviation else item.text
        )
        verdict = "[green]passed[/green]" if results.conforms(item) else "[red]FAILED[/red]"
        table.add_row(f"S{item.number}", said, verdict, results.where(item))
    return table


if __name__ == "__main__":
    sys.exit(main())
