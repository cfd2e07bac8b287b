"""The picture of a run: what was accepted, decided and left unanswered over time, with the faults that were injected.

Drawn by matplotlib, which is an extra: everything else here works without it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.audit.evidence import Evidence
from runtime.audit.journal import Op, Told
from runtime.audit.marks import Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 120
NAMED_MAX = 14  # More faults than this are told apart by colour alone.
SUFFIXES = (".svg", ".png")
ACCEPTED, DECIDED, UNANSWERED = "#1f6feb", "#2da44e", "#cf222e"
SHADES = ("#f5c26b", "#c9a6f0", "#8fd3d1", "#f2a0a0", "#b5cf8a", "#d9b99b", "#9fb8e8", "#e6a3cf")


class NoPlotsError(Exception):
    """matplotlib is not installed."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Times:
    """When what happened, in seconds from the beginning of the run."""

    accepted: Sequence[float]
    decided: Sequence[float]
    unanswered: Sequence[float]
    start_ms: float
    end_s: float


def times_of(evidence: Evidence) -> Times:
    """What the picture shows. Acceptance is as clients saw it where there is a journal, else as the log has it."""
    orders = [one for _, one in evidence.history.orders]
    accepted = [one.ended_ms for one in evidence.accepted.values()]
    accepted = accepted or [float(one.opened_ms) for one in orders]
    decided = [one.ended_ms for one in orders if one.ended_ms]
    unanswered = [
        one.ended_ms
        for one in evidence.journal
        if one.outcome is Told.UNKNOWN and one.op in (Op.PLACE, Op.CANCEL)
    ]
    marked = [mark.at_ms for mark in evidence.marks]
    healed = [mark.healed_ms for mark in evidence.marks if mark.healed_ms]
    all_ms = [*accepted, *decided, *unanswered, *marked, *healed] or [0.0]
    start_ms = min(all_ms)

    def since(times_ms: Iterable[float]) -> list[float]:
        return sorted((at_ms - start_ms) / 1000 for at_ms in times_ms)

    end_s = max((max(all_ms) - start_ms) / 1000, 1.0)
    return Times(since(accepted), since(decided), since(unanswered), start_ms, end_s)


def draw(evidence: Evidence, path: Path, title: str) -> None:
    """Write the picture as SVG or PNG, by the ending of its path.

    Raises:
        NoPlotsError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise NoPlotsError(
            "a picture needs matplotlib: install it with pip install 'orders[plots]'"
        ) from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    times = times_of(evidence)
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=(11, 6.4), sharex=True, height_ratios=(3, 2), layout="constrained"
        )
        _draw_sums(top, times)
        _draw_rates(bottom, times)
        _draw_faults((top, bottom), evidence.marks, times)
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _draw_sums(axes: "Axes", times: Times) -> None:
    for seconds, colour, name in (
        (times.accepted, ACCEPTED, "accepted"),
        (times.decided, DECIDED, "decided"),
        (times.unanswered, UNANSWERED, "requests without an answer"),
    ):
        steps = [0.0, *seconds, times.end_s]
        counts = [*range(len(seconds) + 1), len(seconds)]
        label = f"{name} ({len(seconds):,})"
        axes.step(steps, counts, where="post", color=colour, label=label, linewidth=1.6)
    axes.set_ylabel("so far")
    _finish(axes)


def _draw_rates(axes: "Axes", times: Times) -> None:
    width = max(times.end_s / BINS, 0.1)
    edges = [n * width for n in range(int(times.end_s / width) + 2)]
    for seconds, colour, name in (
        (times.accepted, ACCEPTED, "accepted"),
        (times.decided, DECIDED, "decided"),
        (times.unanswered, UNANSWERED, "without an answer"),
    ):
        counts = Counter(int(at_s / width) for at_s in seconds)
        rates = [counts[n] / width for n in range(len(edges))]
        if colour == UNANSWERED:
            axes.bar(edges, rates, width, align="edge", color=colour, label=name, zorder=2)
        else:
            axes.step(edges, rates, where="post", color=colour, label=name, linewidth=1.2)
    axes.set_ylabel("each second")
    axes.set_xlabel("seconds from the beginning")
    axes.set_xlim(0, times.end_s)
    _finish(axes)


def _finish(axes: "Axes") -> None:
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _draw_faults(panels: Sequence["Axes"], marks: Sequence[Mark], times: Times) -> None:
    """A band from each fault to its healing; named where there is room, else listed by row."""
    rows = sorted({mark.row for mark in marks})
    shades = {row: SHADES[n % len(SHADES)] for n, row in enumerate(rows)}
    is_named = len(marks) <= NAMED_MAX
    seen: set[str] = set()
    top = panels[0]
    for mark in sorted(marks, key=lambda one: one.at_ms):
        from_s = (mark.at_ms - times.start_ms) / 1000
        to_s = (mark.healed_ms - times.start_ms) / 1000 if mark.healed_ms else times.end_s
        for axes in panels:
            axes.axvspan(from_s, to_s, color=shades[mark.row], alpha=0.3, linewidth=0, zorder=0)
            axes.axvline(from_s, color=shades[mark.row], linewidth=0.9, zorder=1)
        if is_named:
            name = f" {mark.row} {mark.name}".rstrip()
            at = (from_s, 0.98)
            top.annotate(
                name, at, xycoords=("data", "axes fraction"), rotation=90, fontsize=7, va="top"
            )
        elif mark.row not in seen:
            seen.add(mark.row)
            count = sum(one.row == mark.row for one in marks)
            top.plot([], [], color=shades[mark.row], linewidth=6, label=f"{mark.row} ({count})")
    for axes in panels:  # Above the curves, where nothing is covered.
        place: Mapping[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 9}
        axes.legend(**place, frameon=False, fontsize=8, handlelength=1.2, columnspacing=1.2)
