"""The profile by part of the program: whose time a function's is, and what the shares come to."""

import pstats
import time

import pytest

from runtime.bench.parts import Profiler, part_of, seconds_by_part, shares


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("/x/runtime/shard.py", "shards: hear, commit, act"),
        ("/x/runtime/bench/instance.py", "the benchmark's channel"),
        ("/x/runtime/tracing_sdk.py", "tracing"),
        ("/x/site-packages/trio/_core/_run.py", "trio"),
        ("/x/site-packages/trio_asyncio/_base.py", "asyncio under trio"),
        ("/x/messages/routing.py", "tail and routing"),
        ("/x/messages/record.py", "messages: facts and records"),
        ("/usr/lib/python3.11/contextlib.py", "the rest"),
    ],
)
def test_a_file_belongs_to_a_part_of_the_program(file: str, part: str) -> None:
    assert part_of(file) == part


def test_c_functions_count_where_they_are_called_from_and_sleep_does_not_count() -> None:
    actor, shard = ("/x/actors/order.py", 1, "react"), ("/x/runtime/shard.py", 1, "run")
    stats = pstats.Stats()
    stats.stats = {  # type: ignore[attr-defined]  # Not in its stub.
        actor: (1, 1, 2.0, 3.0, {}),
        ("~", 0, "<built-in method len>"): (
            2,
            2,
            1.5,
            1.5,
            {actor: (1, 1, 1.0, 1.0), shard: (1, 1, 0.5, 0.5)},
        ),
        ("~", 0, "<method 'poll' of 'select.epoll' objects>"): (
            1,
            1,
            9.0,
            9.0,
            {shard: (1, 1, 9.0, 9.0)},
        ),
        ("~", 0, "<method 'send' of '_socket.socket' objects>"): (
            1,
            1,
            4.0,
            4.0,
            {shard: (1, 1, 4.0, 4.0)},
        ),
    }
    assert seconds_by_part(stats) == {
        "actors": 3.0,
        "shards: hear, commit, act": 0.5,
        "sockets: sending and receiving": 4.0,
    }


def test_shares_are_of_the_time_that_was_measured_without_the_profiler() -> None:
    assert shares({"trio": 1.0, "actors": 3.0}, cpu_ms=0.4) == [
        {"part": "actors", "percent": 75.0, "us_per_order": 300.0},
        {"part": "trio", "percent": 25.0, "us_per_order": 100.0},
    ]


def test_the_profiler_sees_what_runs_between_start_and_stop() -> None:
    profiler = Profiler()
    profiler.start()
    while time.process_time() % 0.01 < 0.005:
        part_of("/x")
    part_of("/x")
    assert profiler.stop()["the benchmark's channel"] > 0
