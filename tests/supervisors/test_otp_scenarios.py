"""S89. The cases of OTP's supervisor suite, replayed: `otp_scenarios.txt` has the trace that each must leave."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisors import (
    BRUTAL,
    IGNORE,
    AdminFault,
    AutoShutdown,
    Backoff,
    ChildSpec,
    ConfigError,
    Restart,
    Shutdown,
    StartFailed,
    Strategy,
    Supervisor,
    SupervisorSpec,
    child_supervisor,
)

FILE = Path(__file__).with_name("otp_scenarios.txt")


Words = tuple[str, ...]


@dataclass(frozen=True)
class Branch:
    words: Words
    below: "tuple[Branch, ...]" = ()


@dataclass(frozen=True)
class Scenario:
    name: str
    tree: Branch
    steps: tuple[str, ...]  # What is done => the trace that it leaves.


def read_scenarios(text: str) -> Iterator[Scenario]:
    lines = (line.partition("# ")[0].rstrip() for line in text.splitlines())
    for block in "\n".join(lines).split("\n== ")[1:]:
        name, *body = (line for line in block.splitlines() if line.strip())
        yield Scenario(
            name,
            read_branches([line for line in body if "=>" not in line])[0],
            tuple(" ".join(line.split()) for line in body if "=>" in line),
        )


def read_branches(lines: list[str]) -> tuple[Branch, ...]:
    """Lines as a tree: what is indented is below what is not."""
    tops = [at for at, line in enumerate(lines) if not line.startswith(" ")]
    return tuple(
        Branch(
            tuple(lines[top].split()), read_branches([line[2:] for line in lines[top + 1 : end]])
        )
        for top, end in zip(tops, [*tops, len(lines)][1:], strict=True)
    )


SCENARIOS = tuple(read_scenarios(FILE.read_text()))


def test_s89_there_are_forty_of_them_each_with_a_name_of_its_own():
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS) >= 40


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_s89_an_otp_case_leaves_the_trace_that_is_stored(stage, scenario):
    async with trio.open_nursery() as nursery:
        play = Play(stage, nursery, scenario.tree)
        played = tuple([await play.do(step.partition(" =>")[0]) for step in scenario.steps])
        nursery.cancel_scope.cancel()
    assert played == scenario.steps


class Play:
    """Does what a scenario says, to a tree that runs beside it."""

    def __init__(self, stage, nursery: trio.Nursery, tree: Branch) -> None:
        self.stage, self.nursery, self.tree = stage, nursery, tree
        self.root: Supervisor | None = None  # From the first start on.
        self.life = trio.CancelScope()

    async def do(self, step: str) -> str:
        """Take one step, let everything happen that follows at once, and tell the trace."""
        verb, *words = step.split()
        answer = await self.verbs()[verb](*words)
        await wait_all_tasks_blocked()
        verdict, self.stage.verdict = self.stage.verdict, None
        ended = type(verdict).__name__ if verdict else ""
        return " ".join(filter(None, (step, "=>", self.stage.read(), answer, ended)))

    def verbs(self) -> dict[str, Callable[..., Awaitable[str]]]:
        return {
            "boot": self.boot,
            "exit": self.exit,
            "crash": partial(self.end, ValueError("crash")),
            "return": partial(self.end, None),
            "finish": partial(self.end, Shutdown("done")),
            "refuse": self.refuse,
            "linger": self.linger,
            "wait": self.wait,
            "which": self.which,
            "count": self.count,
            "start": self.start,
            "instance": partial(self.ask, "start_instance"),
            "stop": partial(self.ask, "stop_child"),
            "restart": partial(self.ask, "restart_child"),
            "delete": partial(self.ask, "delete_child"),
        }

    # The steps. Each says what was answered.

    async def boot(self) -> str:
        self.nursery.start_soon(self.run)
        return ""

    async def run(self) -> None:
        with self.life:
            try:
                spec = self.supervisor(self.tree.words, self.tree.below)
                await self.stage.supervise(spec, on_open=partial(setattr, self, "root"))
                self.stage.diary.append("ended")
            except trio.Cancelled:
                raise
            except BaseException as verdict:  # noqa: BLE001 - every way to end is part of the trace
                self.stage.verdict = verdict

    async def exit(self) -> str:
        await self.root.stop()
        return ""

    async def end(self, error: Exception | None, child_id: str) -> str:
        self.stage.end_soon(child_id, error)
        return ""

    async def refuse(self, child_id: str, times: str) -> str:
        self.stage.role(child_id).refuse = [ValueError("refused")] * int(times)
        return ""

    async def linger(self, child_id: str, duration_s: str) -> str:
        self.stage.role(child_id).cleanup_s = float(duration_s)
        return ""

    async def wait(self, duration_s: str) -> str:
        await trio.sleep(float(duration_s))
        return ""

    async def which(self, path: str = "/") -> str:
        children = self.at(path).which_children()
        return " ".join(f"{child.id}:{child.state.value}" for child in children) or "nobody"

    async def count(self, path: str = "/") -> str:
        counts = self.at(path).count_children()
        return f"{counts.specs} {counts.active} {counts.supervisors} {counts.workers}"

    async def start(self, *words: str) -> str:
        path, _, child_id = words[0].rpartition("/")
        return await self.ask("start_child", self.child((child_id, *words[1:]), ()), path=path)

    async def ask(self, method: str, *args: object, path: str = "/") -> str:
        try:
            answer = await getattr(self.at(path), method)(*args)
        except (AdminFault, ConfigError, StartFailed) as refusal:
            return type(refusal).__name__
        return "ignored" if answer is IGNORE else ""

    def at(self, path: str) -> Supervisor:
        return self.root.find(path) if path.strip("/") else self.root

    # From words to specs.

    def supervisor(self, words: Words, below: tuple[Branch, ...]) -> SupervisorSpec:
        strategy, limit, *more = words
        intensity, period_s, *delay_s = limit.replace("+", "/").split("/")
        pause_s = float(*delay_s)  # Without one restarts follow at once, as in OTP.
        children = tuple(self.child(branch.words, branch.below) for branch in below)
        is_dynamic = strategy == "dynamic"
        return SupervisorSpec(
            () if is_dynamic else children,
            strategy=Strategy(strategy),
            intensity=int(intensity),
            period_s=float(period_s),
            backoff=Backoff(pause_s, pause_s, jitter=0.0),
            auto_shutdown=AutoShutdown(more[0]) if more else AutoShutdown.NEVER,
            template=children[0] if is_dynamic else None,
        )

    def child(self, words: Words, below: tuple[Branch, ...]) -> ChildSpec:
        child_id, *more = words
        restart = next((r for r in Restart if r.value in more), Restart.PERMANENT)
        is_significant = "significant" in more
        if "supervisor" in more:
            own = self.supervisor(tuple(more[more.index("supervisor") + 1 :]), below)
            return child_supervisor(child_id, own, restart=restart, significant=is_significant)
        is_template = child_id == "template"
        return ChildSpec(
            child_id,
            ignore if "ignores" in more else self.stage.play,
            args=() if is_template else (child_id,),
            restart=restart,
            significant=is_significant,
            shutdown_s=BRUTAL if "brutal" in more else None,
        )


async def ignore(*_: object, task_status: object) -> object:
    return IGNORE
