"""The same seed is the same history, to the byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.explore import draw
from runtime.explore.play import play

SEEDS = range(12)
PRINT_DIGESTS = f"""
from runtime.explore import draw
from runtime.explore.play import play
print(*(play(draw(seed)).digest() for seed in {SEEDS!r}))
"""


def digests_elsewhere(hash_seed: str) -> list[str]:
    """Of the same seeds in a process of its own, where sets of texts have another order."""
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", PRINT_DIGESTS],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split()


def test_a_seed_always_draws_the_same_schedule() -> None:
    assert [draw(seed) for seed in SEEDS] == [draw(seed) for seed in SEEDS]
    assert len({repr(draw(seed)) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.slow
def test_a_seed_played_again_is_the_same_history_here_and_in_other_processes() -> None:
    here = [play(draw(seed)).digest() for seed in SEEDS]
    assert len(set(here)) == len(SEEDS)
    assert [play(draw(seed)).digest() for seed in reversed(SEEDS)] == here[::-1]
    assert digests_elsewhere("1") == digests_elsewhere("2") == here


def test_playing_leaves_no_trace_of_its_own_rules() -> None:
    import gc

    import structlog
    import trio

    from runtime import shard

    before = (gc.isenabled(), shard.GROUP_FACTS_MAX, structlog.is_configured())
    dice = trio._core._run._r
    play(draw(0))
    assert (gc.isenabled(), shard.GROUP_FACTS_MAX, structlog.is_configured()) == before
    assert trio._core._run._r is dice
