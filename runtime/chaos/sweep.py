"""The crash-point sweep: one order, killed before and after every frame of it, and again while it recovers.

A point is a frame, by its place among those between the request and quiet, and a side of it. At each point a new order
is placed, the instance is killed with SIGKILL the moment that frame is seen (before: the frame is lost too), another is
started, and the client repeats its request with the same key. Runs differ a little, so places are counted up until the
next one cannot be had again. What has a clock of its own (pings, heartbeats, looking at the streams) is no frame of it.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from runtime.audit import Mark
from runtime.chaos.proxy import CUT_BEFORE, DROP, FORWARD, Fate, Passing, forward
from runtime.chaos.sweep_client import Client, OddAnswerError
from runtime.chaos.sweep_ground import Ground, now_ms, open_ground
from runtime.chaos.sweep_orders import SCENARIOS, Books, Scenario
from runtime.chaos.zygote import Zygote, open_zygote
from supervisors.errors import leaves

RUNS_PER_GROUND: Final = 40  # A recovery reads the journals, and they get longer.
USUAL_RUNS: Final = 3  # The shortest of so many is taken for a usual one.
TRIES: Final = 6  # To reach a place that a run before has reached.
SETTLE_S: Final = 30.0  # From placing to quiet, whatever happens in between.


class Side(StrEnum):
    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the order of frames, from 0, and a side of the frame there."""

    place: int
    side: Side


@dataclass(slots=True)
class Coverage:
    """Of one scenario: how many points there are, how many were killed at, and how many pairs."""

    frames: list[str] = field(default_factory=list)
    """Of a usual run without a kill: what the places are."""
    existing: int = 0
    covered: int = 0
    pairs: int = 0
    rare: int = 0
    """Points killed at beyond those: at a place that so few runs have that its other side was not met again."""


@dataclass(slots=True)
class SweepReport:
    coverage: dict[str, Coverage] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    orders: int = 0
    kills: int = 0
    audits: int = 0
    """Of the whole log, one for each ground."""

    @property
    def existing(self) -> int:
        return sum(coverage.existing for coverage in self.coverage.values())

    @property
    def covered(self) -> int:
        return sum(coverage.covered for coverage in self.coverage.values())

    @property
    def pairs(self) -> int:
        return sum(coverage.pairs for coverage in self.coverage.values())


async def run_sweep(
    directory: Path,
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    points_max: int | None = None,
    pairs: int = 0,
    seed: int = 0,
    on_progress: Callable[[SweepReport], None] = lambda _: None,
) -> SweepReport:
    """Kill at every point of each scenario (at `points_max` of them, drawn from the seed), then at so many pairs.

    The scenarios run beside each other, each on a ground of its own: most of the time is waiting for quiet.
    """
    report = SweepReport()
    async with open_zygote() as zygote, trio.open_nursery() as nursery:
        for scenario in scenarios:
            coverage = report.coverage[scenario.name] = Coverage()
            rng = random.Random(f"{seed} {scenario.name}")  # noqa: S311  # It has to repeat.
            sweep = _Sweep(scenario, coverage, report, directory, zygote, rng, on_progress)
            nursery.start_soon(sweep.run, points_max, pairs)
    return report


@dataclass(slots=True)
class _Sweep:
    """The sweep of one scenario."""

    scenario: Scenario
    coverage: Coverage
    report: SweepReport
    directory: Path
    zygote: Zygote
    rng: random.Random
    on_progress: Callable[[SweepReport], None]
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    ground: Ground | None = None
    books: Books = field(default_factory=Books)
    runs_left: int = 0
    recovery_places: int = 1
    """How many frames the newest recovery had."""

    async def run(self, points_max: int | None, pairs: int) -> None:
        async with self.stack:
            passed = [(await self._place_one(())).passed for _ in range(USUAL_RUNS)]
            self.coverage.frames = min(passed, key=len)
            await (self._cover() if points_max is None else self._sample(points_max))
            for _ in range(pairs * TRIES):
                if self.coverage.pairs < pairs:
                    run = await self._place_one(self._draw_pair())
                    self.coverage.pairs += len(run.fired) == len(run.wanted)
            await self._leave_ground()

    async def _cover(self) -> None:
        """Kill at each point."""
        place = 0
        while True:
            unreached = [side for side in Side if not await self._reach(Point(place, side))]
            is_usual = place < len(self.coverage.frames)
            if unreached and not is_usual:
                self.coverage.rare = len(Side) - len(unreached)
                return
            self.coverage.existing += len(Side)
            self.coverage.covered += len(Side) - len(unreached)
            place += 1

    async def _sample(self, count: int) -> None:
        """Kill at so many points."""
        known = len(self.coverage.frames)
        points = [Point(place, side) for place in range(known) for side in Side]
        self.coverage.existing = len(points)
        for point in self.rng.sample(points, min(count, len(points))):
            self.coverage.covered += await self._reach(point)

    def _draw_pair(self) -> list[Point]:
        """A point, and a point of the recovery from the kill there."""
        places = len(self.coverage.frames), self.recovery_places
        return [Point(self.rng.randrange(most), self.rng.choice(list(Side))) for most in places]

    async def _reach(self, point: Point) -> bool:
        """Whether a kill happened there, in a few tries."""
        for _ in range(TRIES):
            if (await self._place_one((point,))).fired:
                return True
        return False

    async def _place_one(self, points: Sequence[Point]) -> "Trap":
        """Place one order, with the trap set; hold what came of it against the books."""
        ground = await self._ready_ground()
        trap = Trap(ground.kill, points)
        starts, began_ms = ground.starts, now_ms()
        self.report.orders += 1
        key = f"swept-{self.report.orders}"
        problems: list[str] = []
        try:
            with trio.move_on_after(SETTLE_S) as patience:
                answers = await _live_through(ground, self.scenario, key, trap)
                levels = await ground.stock()
                problems += self.books.close(self.scenario, answers, ground.ledger.lines, levels)
        except* OddAnswerError as odd:
            problems += [str(error) for error in leaves(odd)]
        if patience.cancelled_caught:
            problems.append(f"it was not over within {SETTLE_S:g} s")
        if ground.starts - starts != len(trap.fired):
            problems.append("the instance ended by itself")
        self.report.kills += len(trap.fired)
        ground.marks += [Mark(began_ms, "F2", where, now_ms()) for where in trap.fired]
        if len(trap.fired) == 1 and not trap.points:
            self.recovery_places = max(1, len(trap.passed))
        if problems:
            where = ", then ".join(trap.fired) or "no kill"
            told = f"{self.scenario.name}, {key} ({where}), see {ground.log_file}"
            self.report.findings += [f"{told}: {problem}" for problem in problems]
            self.runs_left = 0  # What comes next must not suffer from it.
        self.on_progress(self.report)
        return trap

    async def _leave_ground(self) -> None:
        """Audit the log of what ran on the ground at hand, and be done with it."""
        if self.ground is None:
            return
        report = await self.ground.audit()
        self.report.audits += 1
        self.report.findings += [
            f"{self.ground.log_file.parent}: {finding.invariant}, {finding.subject}: {finding.seen}"
            for finding in report.findings
        ]
        await self.stack.aclose()
        self.ground = None

    async def _ready_ground(self) -> Ground:
        if self.ground is None or not self.runs_left:
            await self._leave_ground()
            directory = self.directory / self.scenario.name / f"from-{self.report.orders}"
            self.ground = await self.stack.enter_async_context(open_ground(directory, self.zygote))
            self.books = Books()
            self.runs_left = RUNS_PER_GROUND
        self.runs_left -= 1
        return self.ground


class Trap:
    """A rule that kills at the first of its points, and at the next one of those that pass after the restart."""

    def __init__(self, kill: Callable[[], None], points: Sequence[Point]) -> None:
        self.wanted = points
        self.points = list(points)
        self.fired: list[str] = []
        self.passed: list[str] = []
        """Since the last start."""
        self.charging = trio.Event()
        self._kill = kill
        self._is_shut = False

    def reset(self) -> None:
        """Count the frames of a new instance."""
        self.passed = []
        self._is_shut = False

    def has_fired_since(self, kills: int) -> bool:
        return len(self.fired) > kills

    def __call__(self, passing: Passing) -> Fate:
        if self._is_shut:
            return DROP  # The dead say nothing more.
        place = len(self.passed)
        self.passed.append(str(passing))
        if passing.said.about == "POST /charges":
            self.charging.set()
        if not self.points or self.points[0].place != place:
            return FORWARD
        point = self.points.pop(0)
        self.fired.append(f"{point.side} {place}: {passing}")
        self._is_shut = True
        if point.side is Side.AFTER:
            return Fate(cuts=True, then=self._kill)
        self._kill()
        return CUT_BEFORE


async def _live_through(
    ground: Ground, scenario: Scenario, key: str, trap: Trap
) -> list[dict[str, Any]]:
    """Place an order and wait until all is quiet, and again after each kill; returns each final answer."""
    client = Client(ground, scenario, key)
    starts = ground.starts
    answers: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_running, ground, trap)
        ground.rule = trap
        async with trio.open_nursery() as clients:
            if scenario.cancels:
                clients.start_soon(client.cancel_once, trap.charging)
            await client.place()
            kills = -1
            while kills != len(trap.fired):
                kills = len(trap.fired)
                if kills:
                    await ground.wait_started(starts + kills)
                    await client.find()
                answers.append(await client.place_and_wait())
                await ground.wait_quiet(partial(trap.has_fired_since, kills))
        ground.rule = forward
        nursery.cancel_scope.cancel()
    return answers


async def _keep_running(ground: Ground, trap: Trap) -> None:
    while True:
        await ground.wait_ended()
        trap.reset()
        await ground.start()
