"""S88. Random trees live random lives; after every step they are compared to a plain model of the rules.

`MODEL_EXAMPLES=100000 pytest tests/supervisors/test_model.py` makes a night of it.
"""

import os
from dataclasses import dataclass, field
from functools import partial

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisors import (
    AdminFault,
    Backoff,
    ChildSpec,
    MaxRestartsExceeded,
    Restart,
    Shutdown,
    StartFailed,
    State,
    Strategy,
    SupervisorSpec,
    child_supervisor,
)

BACKOFF = Backoff(min_s=0.25, max_s=2.0, jitter=0.0, stable_after_s=4.0)
PERIOD_S = 30.0
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "150"))
RUNNING, WAITING, STOPPED, UNDEFINED = (
    State.RUNNING,
    State.RESTARTING,
    State.STOPPED,
    State.UNDEFINED,
)


class Refused(Exception):  # noqa: N818 - the model's own word for a start that failed
    pass


@dataclass
class Kid:
    spec: ChildSpec
    state: State = UNDEFINED
    due: float = 0.0
    since: float = 0.0
    in_a_row: int = 0
    life: "Sup | None" = None  # Where it is a supervisor that runs.

    @property
    def plan(self) -> SupervisorSpec | None:
        return getattr(self.spec.start, "spec", None)


@dataclass
class Sup:
    path: str
    spec: SupervisorSpec
    parent: "tuple[Sup, Kid] | None"
    kids: list[Kid]
    failures: list[float] = field(default_factory=list)

    @property
    def is_ordered(self) -> bool:
        return self.spec.strategy is not Strategy.ONE_FOR_ONE

    def next_up(self) -> list[Kid]:
        waiting = [kid for kid in self.kids if kid.state is WAITING]
        return waiting[:1] if self.is_ordered else waiting


class Model:
    """What has to happen, said as plainly as possible; starting and stopping take no time."""

    def __init__(self, spec: SupervisorSpec) -> None:
        self.now = 0.0
        self.refusals: dict[str, int] = {}
        self.told: dict[str, list[str]] = {}
        self.is_over = False
        self.root = self.boot("/", spec, None)

    # Starting and stopping.

    def boot(self, path: str, spec: SupervisorSpec, parent: "tuple[Sup, Kid] | None") -> Sup:
        sup = Sup(path, spec, parent, [Kid(child) for child in spec.children])
        for at, kid in enumerate(sup.kids):
            try:
                self.start(sup, kid)
            except Refused:
                for started in reversed(sup.kids[:at]):
                    self.halt(sup, started)
                raise
        return sup

    def start(self, sup: Sup, kid: Kid) -> None:
        kid.state, kid.life = UNDEFINED, None
        if kid.plan is not None:
            kid.life = self.boot(kid.spec.id, kid.plan, (sup, kid))
        elif self.refusals.get(kid.spec.id):
            self.refusals[kid.spec.id] -= 1
            raise Refused
        else:
            self.tell(sup, "+", kid)
        kid.state, kid.since = RUNNING, self.now

    def halt(self, sup: Sup, kid: Kid) -> None:
        if kid.state is RUNNING:
            for small in reversed(kid.life.kids if kid.life else []):
                self.halt(kid.life, small)
            if kid.plan is None:
                self.tell(sup, "-", kid)
            self.has_run(kid)
        kid.state, kid.life = STOPPED, None

    def has_run(self, kid: Kid) -> None:
        if self.now - kid.since >= BACKOFF.stable_s:
            kid.in_a_row = 0

    def tell(self, sup: Sup, mark: str, kid: Kid) -> None:
        self.told.setdefault(sup.path, []).append(mark + kid.spec.id)

    # Ends and what follows.

    def end(self, sup: Sup, kid: Kid, *, abnormal: bool) -> None:
        if kid.plan is None:
            self.tell(sup, "!", kid)
        self.has_run(kid)
        kid.state, kid.life = UNDEFINED, None
        restart = kid.spec.restart
        if restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and abnormal):
            self.fail(sup, kid)
        elif restart is Restart.TEMPORARY:
            sup.kids.remove(kid)

    def fail(self, sup: Sup, kid: Kid) -> None:
        recent = [at for at in sup.failures if at >= self.now - PERIOD_S]
        sup.failures = [*recent, self.now]
        if len(sup.failures) > sup.spec.intensity:
            self.give_up(sup)
            return
        due = self.now + min(BACKOFF.max_s, BACKOFF.min_s * 2**kid.in_a_row)
        kid.in_a_row += 1
        kid.state, kid.due = WAITING, due
        for other in reversed(self.others(sup, kid)):
            if other.state is STOPPED:
                continue
            if other.state is RUNNING and other.spec.restart is Restart.TEMPORARY:
                self.halt(sup, other)
                sup.kids.remove(other)
                continue
            self.halt(sup, other)
            other.state, other.due = WAITING, due

    def others(self, sup: Sup, kid: Kid) -> list[Kid]:
        match sup.spec.strategy:
            case Strategy.ONE_FOR_ALL:
                return [other for other in sup.kids if other is not kid]
            case Strategy.REST_FOR_ONE:
                return sup.kids[sup.kids.index(kid) + 1 :]
        return []

    def give_up(self, sup: Sup) -> None:
        for kid in reversed(sup.kids):
            self.halt(sup, kid)
        if sup.parent is None:
            self.is_over = True
        else:
            self.end(*sup.parent, abnormal=True)

    # Time.

    def sups(self) -> list[Sup]:
        nested = [kid.life for kid in self.root.kids if kid.life is not None]
        return [self.root, *nested]

    def advance(self, until: float) -> None:
        while not self.is_over:
            up = [(kid.due, sup, kid) for sup in self.sups() for kid in sup.next_up()]
            due, sup, kid = min(up, key=lambda entry: entry[0], default=(until + 1, None, None))
            if due > until:
                break
            self.now = max(self.now, due)
            try:
                self.start(sup, kid)
            except Refused:
                self.fail(sup, kid)
        self.now = until

    # Administration; answers with the name of the refusal, if any.

    def admin(self, sup: Sup, kid: Kid, what: str) -> str | None:
        if what == "stop_child":
            self.halt(sup, kid)
            if kid.spec.restart is Restart.TEMPORARY:
                sup.kids.remove(kid)
            return None
        if kid.state in (RUNNING, WAITING):
            return "Running" if kid.state is RUNNING else "Restarting"
        if what == "delete_child":
            sup.kids.remove(kid)
            return None
        try:
            self.start(sup, kid)
        except Refused:
            return "StartFailed"
        return None

    def add(self, sup: Sup, spec: ChildSpec) -> str | None:
        kid = Kid(spec)
        try:
            self.start(sup, kid)
        except Refused:
            return "StartFailed"
        sup.kids.append(kid)
        return None


class Play:
    """One random life, led by the model and the real thing side by side."""

    def __init__(self, stage, spec: SupervisorSpec) -> None:
        self.stage, self.model, self.spec = stage, Model(spec), spec
        self.added = 0

    async def run(self, steps) -> None:
        async with self.stage.running(self.spec) as self.supervisor:
            await self.compare()
            for number, (wait_s, what, which) in enumerate(steps):
                # No two steps at one moment, and no two back-offs that end at one moment.
                until = trio.current_time() + wait_s + 0.001 * (number + 1) ** 1.5
                await trio.sleep_until(until)
                self.model.advance(until)
                await self.compare()
                if self.model.is_over:
                    break
                await self.step(what, which)
                await self.compare()
                if self.model.is_over:
                    break

    async def step(self, what: str, which: int) -> None:
        kids = [(sup, kid) for sup in self.model.sups() for kid in sup.kids]
        if what == "add" or not kids:
            await self.add(self.model.sups()[which % len(self.model.sups())], which)
            return
        sup, kid = kids[which % len(kids)]
        is_running_leaf = kid.plan is None and kid.state is RUNNING
        match what:
            case "refuse" if kid.plan is None:
                self.model.refusals[kid.spec.id] = 1 + which % 2
                self.stage.role(kid.spec.id).refuse[:] = [ValueError("no")] * (1 + which % 2)
            case "crash" | "return" | "shutdown" if is_running_leaf:
                error = {"crash": ValueError("x"), "shutdown": Shutdown("x")}.get(what)
                self.model.end(sup, kid, abnormal=what == "crash")
                await self.stage.end(kid.spec.id, error)
            case "stop_child" | "restart_child" | "delete_child":
                if what == "restart_child" and sup.is_ordered and sup.next_up():
                    return  # It would wait for its turn, and so would we.
                expected = self.model.admin(sup, kid, what)
                assert await self.ask(sup, what, kid.spec.id) == expected

    async def add(self, sup: Sup, which: int) -> None:
        if sup.is_ordered and sup.next_up():
            return
        self.added += 1
        spec = self.stage.child(f"n{self.added}", restart=list(Restart)[which % 3])
        assert await self.ask(sup, "start_child", spec) == self.model.add(sup, spec)

    async def ask(self, sup: Sup, what: str, argument: object) -> str | None:
        real = self.supervisor if sup.path == "/" else self.supervisor.find(sup.path)
        try:
            await getattr(real, what)(argument)
        except (AdminFault, StartFailed) as refusal:
            return type(refusal).__name__
        return None

    async def compare(self) -> None:
        await wait_all_tasks_blocked()
        assert isinstance(self.stage.verdict, MaxRestartsExceeded) == self.model.is_over
        if not self.model.is_over:
            assert self.real(self.supervisor.snapshot()) == self.modelled(self.model.root)
        self.compare_what_was_told()

    def real(self, node):
        return [(child.id, child.state, self.real(child)) for child in node.children]

    def modelled(self, sup: Sup):
        return [
            (kid.spec.id, kid.state, self.modelled(kid.life) if kid.life else [])
            for kid in sup.kids
        ]

    def compare_what_was_told(self) -> None:
        for entries in self.model.told.values():
            ids = {entry[1:] for entry in entries}
            real = [entry for entry in self.stage.diary if entry[1:] in ids]
            assert real == entries
        assert len(self.stage.diary) == sum(map(len, self.model.told.values()))
        self.stage.diary.clear()
        self.model.told.clear()


def leaf(child_id: str):
    return st.sampled_from(Restart).map(lambda restart: (child_id, restart, None))


def children(names: tuple[str, ...]):
    return st.integers(1, len(names)).flatmap(
        lambda size: st.tuples(*(leaf(name) for name in names[:size]))
    )


def supervisors(kids):
    return st.tuples(st.sampled_from(list(Strategy)[:3]), st.integers(0, 4), kids)


def nested(child_id: str, names: tuple[str, ...]):
    return st.tuples(st.just(child_id), st.sampled_from(Restart), supervisors(children(names)))


DEEDS = [
    "crash",
    "crash",
    "return",
    "shutdown",
    "refuse",
    "add",
    "stop_child",
    "restart_child",
    "delete_child",
]
TREES = supervisors(
    st.tuples(leaf("a"), nested("sub1", ("p", "q", "r")), leaf("b"), nested("sub2", ("x", "y")))
    | children(("a", "b", "c", "d"))
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.3, 1.0, 3.0, 5.0]),
        st.sampled_from(DEEDS),
        st.integers(0, 11),
    ),
    max_size=25,
)


def spec_of(stage, tree) -> SupervisorSpec:
    strategy, intensity, kids = tree
    specs = tuple(
        stage.child(child_id, restart=restart)
        if inner is None
        else child_supervisor(child_id, spec_of(stage, inner), restart=restart)
        for child_id, restart, inner in kids
    )
    return SupervisorSpec(specs, strategy, intensity, PERIOD_S, BACKOFF)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 1000)
@given(tree=TREES, steps=STEPS)
def test_s88_random_trees_live_as_the_model_says(new_stage, tree, steps):
    stage = new_stage()
    play = Play(stage, spec_of(stage, tree))
    trio.run(partial(play.run, steps), clock=MockClock(autojump_threshold=0))
