"""What a campaign may say of itself."""

import math

import pytest

from runtime.chaos.outcome import Ending, Outcome, bound, judge, percentile


@pytest.mark.parametrize(
    ("planned", "fired", "accepted", "broken", "doubts", "ending"),
    [
        (3, 3, 10, [], [], Ending.PASSED),
        (3, 2, 10, [], [], Ending.UNKNOWN),
        (3, 0, 10, [], [], Ending.UNKNOWN),
        (0, 0, 10, [], [], Ending.UNKNOWN),
        (3, 3, 0, [], [], Ending.UNKNOWN),
        (3, 3, 10, [], ["an invariant is undecided"], Ending.UNKNOWN),
        (3, 3, 10, ["1 lost"], [], Ending.FAILED),
        (3, 0, 10, ["1 lost"], ["anything"], Ending.FAILED),
    ],
)
def test_only_a_run_whose_faults_all_happened_passes(
    planned: int,
    fired: int,
    accepted: int,
    broken: list[str],
    doubts: list[str],
    ending: Ending,
) -> None:
    said, reasons = judge(
        planned=planned, fired=fired, accepted=accepted, broken=broken, doubts=doubts
    )
    assert said is ending
    assert bool(reasons) is (ending is not Ending.PASSED)


def test_faults_that_did_not_happen_are_the_first_reason() -> None:
    _, reasons = judge(planned=5, fired=2, accepted=9, broken=[], doubts=["something else"])
    assert reasons == ["only 2 of 5 planned faults happened", "something else"]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [3.0, 1.0, 2.0, 4.0]
    assert [percentile(values, share) for share in (0, 25, 50, 95, 100)] == [
        1.0,
        1.0,
        2.0,
        4.0,
        4.0,
    ]
    assert math.isnan(percentile([], 50))


@pytest.mark.parametrize(
    ("trials", "failures", "most"),
    [(300, 0, 0.01), (3, 0, 1.0), (2, 0, 1.0), (0, 0, 1.0), (300, 1, 1.0)],
)
def test_the_bound_is_three_by_the_trials_and_says_nothing_after_a_failure(
    trials: int, failures: int, most: float
) -> None:
    assert bound(trials, failures) == most


def test_the_line_has_every_figure_of_the_run() -> None:
    outcome = Outcome(
        row="F1",
        name="kill -9 the instance",
        goal="",
        brokers=3,
        seed=7,
        planned=6,
        fired=6,
        accepted=120,
        recoveries_s=(1.0, 2.0, 0.5, 0.25, 3.0, 1.5),
        ending=Ending.PASSED,
    )
    assert outcome.line == (
        "F1 on 3: passed | faults 6/6 | accepted 120 | lost 0 | double-charged 0"
        " | recovery p50 1.00 s p95 3.00 s max 3.00 s | 95 % bound 0.5 | kill -9 the instance"
    )
