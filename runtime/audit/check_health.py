"""Health: no exception that nobody handled, no panic, no leak of memory or files (I13)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from runtime.audit.check import judged, unchecked
from runtime.audit.evidence import Evidence
from runtime.audit.report import Finding, Result
from runtime.audit.samples import Sample

ANYWHERE = re.compile(
    "never retrieved|was never awaited|Unhandled exception|Exception ignored in"
    "|a log line could not be rendered"
)
# What a supervisor has handled is part of a JSON line; a bare traceback is one that nobody caught.
UNCAUGHT = re.compile(
    r"^\s*\+? ?(Exception Group )?Traceback \(most recent|^panic: |^fatal error: "
    r"|Fatal Python error|\[FTL\]"
)

RSS_BYTES_PER_H_MAX = 1_000_000
FDS_MORE_MAX = 16  # Connections come and go.
SERIES_MIN_MS = 600_000  # In less time a slope per hour says nothing.
WARM_UP = 3  # The first third of a series is caches filling.


def check_health(evidence: Evidence) -> Result:
    """I13: nothing in the logs that nobody handled; memory grows by a megabyte an hour at most."""
    rule = "nothing unhandled in the logs; memory and open files stay flat"
    if evidence.logs is None and not evidence.samples:
        return unchecked("I13", rule, "the instances' and brokers' logs (--logs FILE)")
    findings: list[Finding] = []
    lines = 0
    for name, text in (evidence.logs or {}).items():
        for number, line in enumerate(text, 1):
            lines += 1
            if is_unhandled(line):
                seen = f"line {number}: {line.strip()[:200]}"
                findings.append(Finding("I13", name, seen))
    notes = [f"{lines} lines of logs"]
    for pid, series in _by_process(evidence.samples).items():
        if series[-1].at_ms - series[0].at_ms < SERIES_MIN_MS:
            notes.append(f"process {pid} was watched too shortly to judge its memory")
        else:
            findings += [Finding("I13", f"process {pid}", seen) for seen in _find_leaks(series)]
    return judged("I13", rule, lines + len(evidence.samples), findings, notes)


def is_unhandled(line: str) -> bool:
    """Whether a line of a log speaks of something that nobody handled."""
    if ANYWHERE.search(line):
        return True
    return not line.startswith("{") and bool(UNCAUGHT.search(line))


def _by_process(samples: Iterable[Sample]) -> dict[int, list[Sample]]:
    series: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda one: one.at_ms):
        series[sample.pid].append(sample)
    return series


def _find_leaks(series: Sequence[Sample]) -> Iterator[str]:
    warm = series[len(series) // WARM_UP :]
    per_h = _slope([(one.at_ms / 3_600_000, one.rss_bytes) for one in warm])
    if per_h > RSS_BYTES_PER_H_MAX:
        yield f"its memory grows by {per_h / 1_000_000:.1f} MB an hour"
    more = warm[-1].fds - warm[0].fds
    if more > FDS_MORE_MAX:
        yield f"it has {more} more open files than it had"


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the least-squares line."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
