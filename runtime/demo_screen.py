"""What the demo shows: a progress bar with the events above it, and at the end a table that a person can read."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from runtime.demo_verdict import Verdict

PLAIN_STEPS = 4  # Lines of progress where there is no terminal.


class Screen(AbstractContextManager["Screen"]):
    """Talks on standard error, so that standard output holds the result alone."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._what, self._done, self._total = "", 0, 0

    def __enter__(self) -> "Screen":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self._bar.console.print(text)

    def begin(self, what: str, total: int) -> None:
        """A new bar: so many steps of this."""
        self._what, self._done, self._total = what, 0, total
        self._task = self._bar.add_task(what, total=total)

    def advance(self) -> None:
        """One step more."""
        self._done += 1
        if self._task is not None:
            self._bar.advance(self._task)
        is_quarter = (
            self._done * PLAIN_STEPS // self._total > (self._done - 1) * PLAIN_STEPS // self._total
        )
        if is_quarter and not self._console.is_terminal:
            self.say(f"{self._what}: {self._done:,} of {self._total:,}")


def result(verdict: Verdict, kept: Path | None) -> RenderableType:
    """The verdict as a table, how it was measured, and where to look next."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for name, figure, remark in _rows(verdict):
        table.add_row(name, figure, remark)
    said = "everything accounted for" if verdict.is_good else "NOT everything accounted for"
    style = "green" if verdict.is_good else "red"
    return Group(Panel(table, title=f"orders demo: {said}", border_style=style), _next(kept))


def _rows(v: Verdict) -> Iterator[tuple[str, str, RenderableType]]:
    yield "placed", f"{v.placed:,}", f"real orders over HTTP; {v.unplaced:,} never accepted"
    yield "confirmed", f"{v.confirmed:,}", ""
    yield "rejected", f"{v.rejected:,}", _listed(v.rejected_by_reason)
    yield "cancelled", f"{v.cancelled:,}", _listed(v.cancels)
    yield "needs attention", f"{v.needs_attention:,}", ""
    yield "lost", f"{v.lost:,}", _checked(not v.lost, "every accepted order is decided")
    once = "no order charged twice, or too much, by the payment provider's ledger"
    yield "double-charged", f"{v.double_charged:,}", _checked(not v.double_charged, once)
    confirmed = f"confirmed {_money(v.confirmed_minor)}"
    right = f"{confirmed}: the same to the penny, order by order"
    wrong = f"{confirmed}; {v.mischarged:,} orders with the wrong money"
    same = _checked(not v.mischarged, wrong if v.mischarged else right)
    yield "charged", _money(v.charged_minor), same
    units = "; ".join(v.stock_faults[:3]) or "opening = available + sold, product by product"
    conserved = _checked(v.stock_conserved, units)
    yield "stock conserved", "yes" if v.stock_conserved else "NO", conserved
    yield "rows skipped", f"{sum(v.rows_skipped.values()):,}", _listed(v.rows_skipped)
    yield "restarts", f"{v.restarts:,}", _listed(v.restarts_by_child)
    yield "503 retried", f"{v.answers_503:,}", f"and {v.unanswered:,} requests without an answer"
    yield "orders/s", f"{v.orders_per_s:,.0f}", "first POST to last terminal order, faults included"
    undisturbed = f"{v.undisturbed_p50_ms:,.0f} / {v.undisturbed_p99_ms:,.0f} ms"
    measured = (
        f"POST to terminal, by the client; {undisturbed} for orders that met none of our faults"
    )
    yield "p50 / p99", f"{v.p50_ms:,.0f} / {v.p99_ms:,.0f} ms", measured


def _checked(good: bool, text: str) -> Text:
    return Text.assemble(("ok  ", "green") if good else ("WRONG  ", "bold red"), text)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _money(minor: int) -> str:
    return f"GBP {minor // 100:,}.{minor % 100:02}"


def _next(kept: Path | None) -> Text:
    if kept is None:
        lines = [
            "orders run                an instance of your own; then, in another terminal:",
            "orders tree               what supervises what, and how often it was restarted",
            "orders demo --keep DIR    keeps the store and the logs of such a run",
        ]
    else:
        lines = [
            f"NATS_STORE_DIR={kept} orders run              the same shop, as it was left",
            f"NATS_STORE_DIR={kept} orders export events    all that happened, in order",
            f"{kept / 'demo.log'}    what supervision reported",
        ]
    lines.append("README.md                 what is promised, and under which conditions")
    return Text("\n  ".join(["Where to look next", *lines]), no_wrap=True, overflow="ignore")
