"""Children that do as they are told, a diary of what they did, and supervisors that run them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisors import (
    Backoff,
    ChildSpec,
    ChildStatus,
    Report,
    Supervisor,
    SupervisorSpec,
    supervise,
)
from supervisors.supervisor import Config

STEADY = Backoff(min_s=0.1, max_s=1.0, jitter=0.0, stable_after_s=10.0)


@dataclass
class Role:
    """How one child behaves, in every life until it is changed."""

    refuse: list[BaseException | None] = field(default_factory=list)  # What its next starts raise.
    start_s: float = 0.0
    cleanup_s: float = 0.0
    cleanup_raises: BaseException | None = None
    lives: int = 0
    cue: trio.Event = field(default_factory=trio.Event)
    exit_with: BaseException | None = None


class Stage:
    def __init__(self) -> None:
        self.diary: list[str] = []  # "+a" has started, "-a" was cancelled, "!a" ended by itself.
        self.reports: list[Report] = []
        self.roles: dict[str, Role] = {}
        self.verdict: BaseException | None = None

    def role(self, child_id: str) -> Role:
        return self.roles.setdefault(child_id, Role())

    def child(self, child_id: str, **spec: object) -> ChildSpec:
        return replace(ChildSpec(child_id, self.play, args=(child_id,)), **spec)

    def spec(self, children: str | tuple[ChildSpec, ...] = (), **rest: object) -> SupervisorSpec:
        """A supervisor with steady back-off; "a b" are two children of that name."""
        if isinstance(children, str):
            children = tuple(self.child(child_id) for child_id in children.split())
        told = {"backoff": STEADY, "intensity": 10, "period_s": 60.0, **rest}
        return replace(SupervisorSpec(children), **told)

    async def end(self, child_id: str, error: BaseException | None = None) -> None:
        """Make a running child raise, or return, and let everything that follows at once happen."""
        self.end_soon(child_id, error)
        await settle()

    def end_soon(self, child_id: str, error: BaseException | None = None) -> None:
        role = self.role(child_id)
        role.exit_with = error
        role.cue.set()

    async def crash(self, child_id: str) -> None:
        await self.end(child_id, ValueError(child_id))

    def read(self) -> str:
        """The diary since it was last read."""
        told, self.diary = " ".join(self.diary), []
        return told

    def heard(self, kind: type[Report]) -> list[Report]:
        return [report for report in self.reports if type(report) is kind]

    @asynccontextmanager
    async def running(self, config: Config, **how: object) -> AsyncIterator[Supervisor]:
        """Run a supervisor beside the test; its verdict is kept, and nothing may be left of it."""
        living = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            supervisor = await nursery.start(self._supervise, config, how)
            yield supervisor
            await supervisor.stop()
        assert trio.lowlevel.current_statistics().tasks_living == living

    async def supervise(self, config: Config, **how: object) -> None:
        """Run a supervisor until it ends; raises its verdict."""
        how = {"on_report": self.reports.append, "rng": Random(1), **how}
        await supervise(config, **how)

    async def _supervise(
        self, config: Config, how: dict[str, object], *, task_status: trio.TaskStatus[Supervisor]
    ) -> None:
        try:
            await self.supervise(config, task_status=task_status, **how)
        except trio.Cancelled:
            raise
        except BaseException as verdict:  # noqa: BLE001 - every way to end is looked at
            self.verdict = verdict

    async def play(self, child_id: str, *, task_status: ChildStatus) -> None:
        role = self.role(child_id)
        role.lives += 1
        role.cue = trio.Event()
        try:
            await trio.sleep(role.start_s) if role.start_s else None
            if role.refuse and (error := role.refuse.pop(0)) is not None:
                raise error
            self.diary.append(f"+{child_id}")
            task_status.started(child_id)
            await role.cue.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(role.cleanup_s)
            self.diary.append(f"-{child_id}")
            if role.cleanup_raises is not None:
                raise role.cleanup_raises from None
            raise
        self.diary.append(f"!{child_id}")
        if role.exit_with is not None:
            raise role.exit_with


async def settle() -> None:
    await wait_all_tasks_blocked()


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture(scope="session")
def new_stage() -> type[Stage]:
    """For tests that run many lives, each on a stage of its own."""
    return Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every trio test of this folder runs in virtual time that jumps on when all tasks wait."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=_in_virtual_time))


def _in_virtual_time(
    main: Callable[[], Awaitable[object]],
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> object:
    clock = clock or MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock, instruments=instruments)
