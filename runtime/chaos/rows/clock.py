"""The row about time: the wall clock of the instance jumps, and nothing may expire, hang or go backwards for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import trio

from runtime.chaos.http import NoAnswerError
from runtime.chaos.row import NotFiredError, Options, Row, Setting, Strike, this_machine
from runtime.chaos.stage import Stage

LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
)
CLOCK_FILE: Final = "clock"
TRUE: Final = "+0"
LASTS_S: Final = (2.0, 5.0)
STROBES: Final = 6
MUCH_S: Final = 600.0  # Below it a difference between two clocks is no jump.


def missing() -> str:
    if _library() is None:
        return "libfaketime is missing: apt-get install libfaketime"
    return ""


@asynccontextmanager
async def with_own_clock(options: Options) -> AsyncIterator[Setting]:
    """The instance's wall clock is what a file says; its monotonic one is the machine's."""
    file = options.directory / CLOCK_FILE
    file.write_text(TRUE)
    environ = {
        "LD_PRELOAD": _library() or "",
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    async with this_machine(options) as setting:
        yield replace(setting, environ={**setting.environ, **environ})


def jump(offset: str, *, restarts: bool = False) -> Strike:
    """A strike: the clock is off by so much for a while; with `restarts` the instance dies meanwhile, too."""

    async def strike(stage: Stage) -> None:
        name = f"clock {offset}" + (", and kill -9 of the instance" if restarts else "")
        async with stage.fault(name) as fault:
            try:
                _set_clock(stage, offset)
                fault.struck()
                if restarts:
                    await stage.instance.kill()
                    await stage.instance.wait_ready()
                await trio.sleep(stage.rng.uniform(*LASTS_S))
                await _must_be_off(stage)
            finally:
                _set_clock(stage, TRUE)

    return strike


async def strobe(stage: Stage) -> None:
    """A second forth and back, again and again."""
    async with stage.fault("clock strobes by 1 s") as fault:
        fault.struck()
        for number in range(STROBES):
            _set_clock(stage, "+1" if number % 2 == 0 else "-1")
            await trio.sleep(0.5)
        _set_clock(stage, TRUE)


def _set_clock(stage: Stage, offset: str) -> None:
    (stage.directory / CLOCK_FILE).write_text(offset)


async def _must_be_off(stage: Stage) -> None:
    """Its answers carry its clock.

    Raises:
        NotFiredError: it is the machine's.
    """
    try:
        answer = await stage.http.ask("GET", stage.instance.http, "/livez")
        true = await stage.http.ask("GET", stage.gateway.address, "/trouble")
    except NoAnswerError as error:
        raise NotFiredError("nobody told the time") from error
    clocks = [
        parsedate_to_datetime(one.headers[b"date"].decode()).timestamp() for one in (answer, true)
    ]
    if abs(clocks[0] - clocks[1]) < MUCH_S:
        raise NotFiredError("its clock is the machine's still")


def _library() -> str | None:
    return next((path for path in LIBRARIES if Path(path).exists()), None)


ROWS = (
    Row(
        "F18",
        "the instance's wall clock jumps",
        goal="nothing expires early; 0 illegal events",
        strikes=(
            jump("+1h"),
            jump("-24h"),
            jump("+400d"),
            strobe,
            jump("-24h", restarts=True),
            jump("+400d", restarts=True),
        ),
        faults=6,
        missing=missing,
        setting=with_own_clock,
        in_mix=False,
    ),
)
