"""`orders bench`: measures, and shows the figures to people, to machines, or as a picture."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from runtime.bench import ROWS, SHORT, Plan, run_bench
from runtime.bench.measured import InstanceDiedError
from runtime.bench.plots import save_plots
from runtime.commands.running import EXIT_FAILED, tell


def parse_rows(text: str) -> tuple[str, ...]:
    """The rows of `--rows`: names with commas between them, `short` or `all`. Refuses (ValueError) what is none."""
    if text in {"short", "all"}:
        return SHORT if text == "short" else tuple(ROWS)
    rows = tuple(text.split(","))
    for row in rows:
        if row not in ROWS:
            raise ValueError(f"{row!r} is no row; write short, all, or some of {', '.join(ROWS)}")
    return rows


def measure(plan: Plan, rows: tuple[str, ...], picture: Path | None, as_json: bool) -> None:
    """Measure and show.

    Raises:
        SystemExit: a measured instance died, or did not do what it should.
    """
    try:
        figures = run_bench(plan, rows, tell)
    except InstanceDiedError as error:
        tell(f"orders: {error}")
        raise SystemExit(EXIT_FAILED) from error
    if picture is not None:
        save_plots(figures, picture)
    if as_json:
        print(json.dumps(figures))
        return
    for name, row in figures.items():
        Console().print(_table(name, row))


def _table(title: str, figures: dict[str, Any]) -> Table:
    """One row's figures; where they are a list, a line for each of it."""
    lists = [figure for figure in figures.values() if isinstance(figure, list)]
    if not lists:
        table = Table(title=title, show_header=False, title_justify="left")
        for name, figure in figures.items():
            table.add_row(name, _shown(figure))
        return table
    (several,) = lists
    others = {name: figure for name, figure in figures.items() if not isinstance(figure, list)}
    below = "\n".join(f"{name}: {_shown(figure)}" for name, figure in others.items())
    table = Table(*several[0], title=title, title_justify="left", caption=below or None)
    for one in several:
        table.add_row(*map(_shown, one.values()))
    return table


def _shown(figure: Any) -> str:
    if isinstance(figure, dict):
        return "; ".join(f"{name} {_shown(inner)}" for name, inner in figure.items())
    if isinstance(figure, list):
        return " to ".join(map(_shown, figure))
    return str(figure)
