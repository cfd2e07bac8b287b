"""The edge of the process: runs the root supervisor, heeds signals, and turns the end into an exit code.

| exit code | what happened                                                            |
|-----------|--------------------------------------------------------------------------|
| 0         | stopped in order: SIGTERM, `stop()`, or significant children ended       |
| n         | a child raised `SystemExit(n)`                                           |
| 1         | gave up, could not start, or failed itself; the chain of causes is told  |
| 70        | a child could not be ended, or not in time, or the loop stood still      |
| 71        | memory ran out                                                           |
| 78        | a configuration fault, which no restart would cure                       |
| 130       | SIGINT, or KeyboardInterrupt                                             |

Code that holds the GIL for ever ends the process with SIGPROF instead of 70: nothing in it can run any more.
"""

import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import trio

from supervisors.engine import Engine, Surroundings
from supervisors.errors import (
    ConfigError,
    MemoryExhausted,
    Shutdown,
    Unkillable,
    brief,
    causes,
    leaves,
)
from supervisors.reports import OnReport, ProcessEnding, tell
from supervisors.roster import ROOT
from supervisors.supervisor import Config, OnOpen, Supervisor, supervise_in
from supervisors.watchdog import EXIT_HUNG, Watchdog

EXIT_FAILED = 1
EXIT_MEMORY = 71  # EX_OSERR
EXIT_CONFIG = 78  # EX_CONFIG
EXIT_INTERRUPTED = 128 + signal.SIGINT

HURRIED_SHUTDOWN_S = 1.0  # After a second signal.
LAST_WORDS_S = 1.0  # For reports to get out before a process with an unkillable child is ended.
MEMORY_RESERVE_BYTES = 1 << 20
MEMORY_LINE = (
    b"out of memory: ending the process with 71\n"  # Made now, while there is memory for it.
)


def run(
    config: Config,
    *,
    on_report: OnReport | None = None,
    on_open: OnOpen | None = None,
    rng: Random | None = None,
    never_restart: tuple[type[BaseException], ...] = (),
    watchdog: Watchdog | None = None,
    grace_s: float = math.inf,
) -> int:
    """Run a supervisor as this process, and return the exit code; `sys.exit(run(...))` is a whole main.

    The first SIGTERM or SIGINT stops the tree in order, a second one leaves every child one second. A stop that
    takes longer than `grace_s` ends the process, whatever is still running: children stop one after the other, so
    their times add up. `on_open` gets the root before the first child starts, when `snapshot()` and `stop()`
    already work.
    """
    edge = _Edge(config, never_restart, watchdog or Watchdog(), on_open, grace_s)
    if on_report is not None:
        edge.surroundings = replace(edge.surroundings, on_report=on_report)
    if rng is not None:
        edge.surroundings = replace(edge.surroundings, rng=rng)
    return edge.run()


@dataclass(slots=True, eq=False)
class _Edge:
    config: Config
    never_restart: tuple[type[BaseException], ...]
    watchdog: Watchdog
    on_open: OnOpen | None
    grace_s: float
    surroundings: Surroundings = field(default_factory=Surroundings)
    root: Supervisor | None = None
    heard: signal.Signals | None = None  # The first signal.
    reserve: bytearray | None = None

    def run(self) -> int:
        self.reserve = bytearray(MEMORY_RESERVE_BYTES)
        try:
            return trio.run(self._main)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED  # Before the signals were ours, or after.
        except MemoryError:
            return self._out_of_memory()

    async def _main(self) -> int:
        try:
            await self._supervise()
        except BaseException as end:  # noqa: BLE001 - whatever ends the tree ends the process with a code
            return self._judge(end)
        if self.heard is signal.SIGINT:
            return self._end(EXIT_INTERRUPTED, self.heard.name)
        return self._end(0, "stopped" if self.heard is None else self.heard.name)

    async def _supervise(self) -> None:
        surroundings = replace(
            self.surroundings,
            never_restart=self.never_restart,
            adopt=self._open,
            abandon=partial(self._end_by_force, "a child could not be ended"),
        )
        with (
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
            self.watchdog.watching(),
        ):
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(self._heed, signals, scope, nursery)
                with scope:
                    await supervise_in(surroundings, self.config)
                nursery.cancel_scope.cancel("the root supervisor has ended")

    async def _heed(
        self, signals: AsyncIterator[int], scope: trio.CancelScope, nursery: trio.Nursery
    ) -> None:
        async for number in signals:
            if self.heard is None:
                self.heard = signal.Signals(number)
                scope.cancel(self.heard.name)
                nursery.start_soon(self._end_after_grace)
            elif self.root is not None:
                self.root.hurry(HURRIED_SHUTDOWN_S)

    async def _end_after_grace(self) -> None:
        await trio.sleep(self.grace_s)
        self._end_by_force(f"not stopped within {self.grace_s:g} s")

    def _open(self, engine: Engine) -> None:
        self.root = Supervisor(engine)
        if self.on_open is not None:
            self.on_open(self.root)

    def _judge(self, end: BaseException) -> int:
        ends = list(leaves(end))
        for leaf in ends:
            if (code := self._code_of(leaf)) is not None:
                return self._end(code, brief(leaf), leaf)
        return self._end(EXIT_FAILED, brief(end), ends[0])

    def _code_of(self, leaf: BaseException) -> int | None:
        match leaf:
            case SystemExit():
                return _system_exit_code(leaf)
            case KeyboardInterrupt():
                return EXIT_INTERRUPTED
            case MemoryExhausted() | MemoryError():
                return self._out_of_memory()
            case Unkillable():
                return EXIT_HUNG
            case Shutdown():
                return 0
            case ConfigError():
                return EXIT_CONFIG
        return EXIT_CONFIG if isinstance(leaf, self.never_restart) else None

    def _out_of_memory(self) -> int:
        self.reserve = None  # Room for what still has to be said.
        os.write(2, MEMORY_LINE)
        return EXIT_MEMORY

    def _end_by_force(self, reason: str) -> None:
        self._end(EXIT_HUNG, reason)
        self.watchdog.end_process(after_s=LAST_WORDS_S)

    def _end(self, code: int, reason: str, error: BaseException | None = None) -> int:
        chain = () if error is None else tuple(brief(cause) for cause in causes(error))
        report = ProcessEnding(
            path=ROOT, at=trio.current_time(), code=code, reason=reason, chain=chain
        )
        tell(self.surroundings.on_report, report)
        return code


def _system_exit_code(end: SystemExit) -> int:
    """What the interpreter would have made of it."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return EXIT_FAILED
