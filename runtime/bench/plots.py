"""The figures of a benchmark as one picture, SVG or PNG by the file's name. Needs the extra `plots`."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.bench.plan import Figures

Draw = Callable[[Any], None]


DRAWN = ("throughput", "intake", "http", "lines", "growth", "recovery")
SUFFIXES = (".svg", ".png")


def check_picture(file: Path, rows: Sequence[str]) -> None:
    """Refuse (ValueError) a picture that could not be drawn, before an hour has been spent on its figures."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file.name} must end in {' or '.join(SUFFIXES)}")
    if not set(rows) & set(DRAWN):
        raise ValueError(f"none of {', '.join(rows)} is drawn; {', '.join(DRAWN)} are")
    if find_spec("matplotlib") is None:
        raise ValueError("a picture needs matplotlib: install it with pip install 'orders[plots]'")


def save_plots(figures: Figures, file: Path) -> None:
    """Draw the rows that were measured and are curves or comparisons."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    drawings = list(_drawings(figures))
    across = min(2, len(drawings))
    down = -(-len(drawings) // across)
    picture, axes = pyplot.subplots(
        down, across, figsize=(6 * across, 4 * down), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(drawings) :]:
        ax.set_visible(False)
    for ax, draw in zip(axes.flat, drawings, strict=False):
        draw(ax)
    picture.savefig(file)
    pyplot.close(picture)


def _drawings(figures: Figures) -> Iterator[Draw]:
    if "growth" in figures:
        decades = figures["growth"]["decades"]
        yield lambda ax: _curve(ax, decades, "orders_per_s", "orders/s by orders finished")
        yield lambda ax: _curve(ax, decades, "p99_ms", "p99 in ms by orders finished", "p50_ms")
        title = "resident memory in MB by orders finished"
        yield lambda ax: _curve(ax, decades, "rss_mb", title, "broker_rss_mb")
        title = "CPU ms an order by orders finished"
        names = "cpu_ms_per_order_runtime", "cpu_ms_per_order_broker"
        yield lambda ax: _curve(ax, decades, names[0], title, names[1])
    if "lines" in figures:
        sizes = figures["lines"]["sizes"]
        yield lambda ax: _curve(
            ax, sizes, "cpu_us_per_line_runtime", "CPU us a line by lines an order"
        )
        yield lambda ax: _curve(ax, sizes, "alone_ms_per_line", "ms a line of an order alone")
    if recoveries := list(_recoveries(figures)):
        yield lambda ax: _bars(
            ax,
            [(f"{one['finished']:,} finished", one["taking_s"]) for one in recoveries],
            f"seconds from start to taking orders, {recoveries[0]['live']:,} live",
        )
    speeds: list[tuple[str, float]] = [
        (name, figures[name]["orders_per_s"])
        for name in ("throughput", "intake", "http")
        if name in figures
    ]
    if "http" in figures:
        speeds.append(("empty route", figures["http"]["empty_route_per_s"]))
    if speeds:
        yield lambda ax: _bars(ax, speeds, "orders/s")


def _recoveries(figures: Figures) -> Iterator[Figures]:
    """After few finished orders and after many."""
    if "recovery" in figures:
        yield figures["recovery"]
    if "growth" in figures:
        yield figures["growth"]["recovery"]


def _curve(ax: Any, points: list[Figures], name: str, title: str, beside: str = "") -> None:
    across = "total" if "total" in points[0] else "lines"
    for line in filter(None, (name, beside)):
        ax.plot([one[across] for one in points], [one[line] for one in points], "o-", label=line)
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_title(title)
    ax.grid(visible=True, alpha=0.3)
    if beside:
        ax.legend()


def _bars(ax: Any, values: Sequence[tuple[str, float]], title: str) -> None:
    bars = ax.bar([name for name, _ in values], [value for _, value in values])
    ax.bar_label(bars)
    ax.set_title(title)
