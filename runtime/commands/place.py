"""Places the orders of a file on a running instance, with a progress bar and a table of what became of them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from typing import IO, Any

import httpx
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from runtime.commands.client import InstanceError, ask, open_client
from runtime.commands.output import write_json
from runtime.commands.placing import ANSWER_S, Pace, Placer, Tally, Wanted
from runtime.config_variables import Config

LOOK_EVERY_S = 0.1
DETAIL_CHARS_MAX = 80


def open_excerpt() -> IO[bytes]:
    """The orders that ship with the product."""
    return (files("runtime") / "data" / "online_retail_excerpt.csv").open("rb")


async def place(
    config: Config, file: IO[bytes], wanted: Iterator[Wanted], pace: Pace, as_json: bool
) -> None:
    """Place everything that is wanted; `file` is where it is read from, for the progress bar.

    Raises:
        InstanceError: no instance is running, or not everything was answered; what was is in the table.
    """
    tally = Tally()
    limits = httpx.Limits(max_connections=pace.at_a_time, max_keepalive_connections=pace.at_a_time)
    async with open_client(config.http_bind, limits=limits) as client:
        await ask(client, "GET", "/livez")
        client.timeout = httpx.Timeout(ANSWER_S)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_show_progress, file, tally)
                await Placer(client, pace, tally).place_all(wanted)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):  # After Ctrl-C too.
                await _report(tally, as_json)
    if not tally.is_complete:
        raise InstanceError(
            "not every order was answered; place the same file again: what is placed stays placed, once"
        )


async def _report(tally: Tally, as_json: bool) -> None:
    if as_json:
        await write_json(as_values(tally))
    else:
        Console().print(render(tally))


def as_values(tally: Tally) -> Mapping[str, Any]:
    return {
        "accepted": tally.accepted,
        "refused": dict(tally.refused.most_common()),
        "cancellations": dict(tally.cancellations.most_common()),
        "skipped": dict(tally.skipped.most_common()),
        "unanswered": dict(tally.unanswered.most_common()),
        "untried_from_line": tally.untried_from_line,
    }


def render(tally: Tally) -> Table:
    """What became of the file, for people."""
    table = Table("", "why", "first")
    table.columns[1].overflow = "fold"
    table.add_column("count", justify="right")
    table.add_row("orders accepted", "", "", f"{tally.accepted:,}", style="green")
    kinds = (
        ("orders refused", tally.refused, "red"),
        ("orders unanswered", tally.unanswered, "bold red"),
        ("cancellations", tally.cancellations, ""),
        ("lines skipped", tally.skipped, "yellow"),
    )
    for name, reasons, style in kinds:
        for at, (reason, count) in enumerate(reasons.most_common()):
            first = Text(_shortened(tally.first[reason]))
            table.add_row("" if at else name, Text(reason), first, f"{count:,}", style=style)
    if tally.untried_from_line is not None:
        what = f"from line {tally.untried_from_line} on"
        table.add_row("not tried", "the instance is gone", what, "", style="bold red")
    return table


def _shortened(text: str) -> str:
    return text if len(text) <= DETAIL_CHARS_MAX else f"{text[:DETAIL_CHARS_MAX]}..."


async def _show_progress(file: IO[bytes], tally: Tally) -> None:
    """Show how much of the file has been read, and what became of it, on a terminal."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        shown = bar.add_task("", total=_size(file))
        while True:
            told = f"{tally.accepted:,} accepted, {tally.refused.total():,} refused"
            bar.update(shown, description=told, completed=_position(file))
            await trio.sleep(LOOK_EVERY_S)


def _size(file: IO[bytes]) -> int | None:
    """Bytes in all; None of a pipe, whose end nobody knows."""
    return os.fstat(file.fileno()).st_size if file.seekable() else None


def _position(file: IO[bytes]) -> int:
    with suppress(OSError, ValueError):
        return file.tell()
    return 0
