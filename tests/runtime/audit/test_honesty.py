"""Honesty and health: I12 a run that proved nothing is unknown, I13 nothing unhandled, no leaks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.audit import Attempt, History, Mark, Op, Sample, Told, Verdict, audit
from runtime.audit.check_health import is_unhandled
from runtime.audit.evidence import Evidence
from runtime.audit.picture import draw, times_of

# --- I12 ---


def test_an_empty_log_is_unknown() -> None:
    report = audit(History())
    assert report.verdict is Verdict.UNKNOWN
    assert report["I12"].notes == ("there is no order in the log",)


def test_a_kind_of_request_that_never_succeeded_makes_it_unknown(evidence: Any) -> None:
    refused = Attempt(Op.STOCK, 0, Told.REFUSED, sku="a")
    report = evidence.audit(journal=[*evidence.journal(), refused])
    assert (report.verdict, report["I12"].notes) == (
        Verdict.UNKNOWN,
        ("no stock ever succeeded",),
    )


def test_fewer_faults_than_planned_make_it_unknown(evidence: Any) -> None:
    marks = [Mark(0, "F1", "kill -9", 1)] * 2
    assert evidence.audit(marks=marks, planned={"F1": 2})["I12"].verdict is Verdict.PASSED
    result = evidence.audit(marks=marks, planned={"F1": 3})["I12"]
    assert (result.verdict, result.notes) == (
        Verdict.UNKNOWN,
        ("F1: 2 of 3 planned faults fired",),
    )


def test_what_should_happen_sometimes_and_never_did_makes_it_unknown(evidence: Any) -> None:
    assert evidence.audit(sometimes={"a refund": 1})["I12"].verdict is Verdict.PASSED
    result = evidence.audit(sometimes={"a refund": 1, "a fence": 0})["I12"]
    assert (result.verdict, result.notes) == (Verdict.UNKNOWN, ("it never happened: a fence",))


def test_a_broken_invariant_outweighs_a_doubt(evidence: Any) -> None:
    del evidence.views["plain"]
    assert evidence.audit(sometimes={"a fence": 0}).verdict is Verdict.FAILED


# --- I13 ---


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "Task exception was never retrieved", "level": "error"}',
        "Traceback (most recent call last):",
        "  + Exception Group Traceback (most recent call last):",
        "panic: runtime error: index out of range",
        "fatal error: concurrent map writes",
        "[17] 2026/01/01 00:00:00.000000 [FTL] JetStream failed",
        "Fatal Python error: Segmentation fault",
        "RuntimeWarning: coroutine 'x' was never awaited",
    ],
)
def test_what_nobody_handled_is_seen_in_a_log(evidence: Any, line: str) -> None:
    report = evidence.audit(logs={"instance.log": ["fine", line]})
    assert report.failed == ("I13",)
    assert report.findings[0].seen.startswith("line 2: ")


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "child_crashed", "exception": "Traceback (most recent call last):\\n  x"}',
        '{"event": "fault", "error": "panic: at the disco"}',
        '{"event": "child_ended", "tail": "[17] [FTL] the last words of a broker that was killed"}',
        "[17] 2026/01/01 00:00:00.000000 [INF] Server is ready",
    ],
)
def test_what_a_supervisor_has_handled_is_no_fault(line: str) -> None:
    assert not is_unhandled(line)


def _series(mb_per_h: float, fds: int = 20, minutes: int = 30) -> list[Sample]:
    return [
        Sample(n * 60_000, 7, 80_000_000 + round(mb_per_h * 1_000_000 * n / 60), fds if n else 20)
        for n in range(minutes + 1)
    ]


@pytest.mark.parametrize(
    ("series", "seen"),
    [
        (_series(0.5), ()),
        (_series(3.0), ("its memory grows by 3.0 MB an hour",)),
        (_series(3.0, minutes=5), ()),
        ([*_series(0.0), Sample(1_860_000, 7, 80_000_000, 60)], ("40 more open files",)),
    ],
)
def test_a_leak_is_seen_where_it_was_watched_for_long_enough(
    evidence: Any, series: list[Sample], seen: tuple[str, ...]
) -> None:
    found = evidence.audit(samples=series)["I13"].findings
    assert len(found) == len(seen)
    assert all(part in one.seen for part, one in zip(seen, found, strict=True))


def test_without_logs_health_is_not_checked(evidence: Any) -> None:
    assert evidence.audit()["I13"].verdict is Verdict.NOT_CHECKED


# --- the picture ---


@pytest.mark.parametrize(
    ("name", "start", "faults"), [("p.png", b"\x89PNG", 2), ("p.svg", b"<?xml", 40)]
)
def test_a_picture_is_drawn_by_the_ending_of_its_name(
    evidence: Any, tmp_path: Path, name: str, start: bytes, faults: int
) -> None:
    history = History()
    history.add_all(evidence.entries)
    at_ms = evidence.entries[0].time_ms
    marks = [Mark(at_ms + n, f"F{n % 3}", "kill -9", at_ms + 500 + n) for n in range(faults)]
    drawn = Evidence(history, journal=evidence.journal(), marks=marks)
    draw(drawn, tmp_path / name, "passed")
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_picture_shows_when_clients_were_told_and_when_orders_ended(
    evidence: Any, placed: Callable[..., Attempt]
) -> None:
    history = History()
    history.add_all(evidence.entries)
    start_ms = evidence.entries[0].time_ms
    lost = Attempt(Op.PLACE, start_ms + 500, Told.UNKNOWN, key="k", took_ms=1_500)
    journal = [placed("plain", at_ms=start_ms, took_ms=0), lost]
    times = times_of(Evidence(history, journal=journal))
    assert (times.accepted, times.unanswered) == ([0.0], [2.0])
    assert len(times.decided) == 6
    assert max(times.decided) == 3, "the slow card"
