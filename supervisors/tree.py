"""The supervision tree as one readable value, and as text."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from supervisors.child import Child, Phase
from supervisors.roster import Mode, Roster
from supervisors.spec import Kind, Strategy


class State(Enum):
    WAITING = "waiting"  # Its first start has not come yet.
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"  # Backing off, or waiting for its turn in a restart.
    STOPPING = "stopping"
    STOPPED = "stopped"  # By hand, or with its supervisor.
    UNDEFINED = "undefined"  # Ended in good order, or chose not to run.
    ESCALATED = "escalated"  # Its supervisor gave up because of it.
    UNKILLABLE = "unkillable"


@dataclass(frozen=True, slots=True)
class Node:
    """A child, or the root, at one moment; times are trio.current_time()."""

    id: str
    path: str
    kind: Kind
    state: State
    since: float
    until: float | None = None  # While backing off: when it will be started again.
    restarts: int = 0  # In all.
    restarts_in_window: int = (
        0  # Of those that count against `intensity` now, the ones for this child.
    )
    intensity: int = 0  # The limit of its supervisor, for all children together.
    last_error: str | None = None
    strategy: Strategy | None = None  # Of a supervisor that runs.
    children: tuple["Node", ...] = ()

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, path: str) -> "Node | None":
        """A node below this one, by its path from the root."""
        return next((node for node in self.walk() if node.path == path.strip("/")), None)

    def render(self, now: float) -> str:
        return "\n".join(_lines(self, now, "", ""))


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A line of `which_children`."""

    id: str
    state: State
    kind: Kind
    since: float
    restarts: int


@dataclass(frozen=True, slots=True)
class Counts:
    specs: int
    active: int
    supervisors: int
    workers: int


def state_of(child: Child) -> State:
    if child.escalated:
        return State.ESCALATED
    match child.phase:
        case Phase.IDLE:
            return State.STOPPED if child.stopped else State.UNDEFINED
        case Phase.WAITING:
            return State.RESTARTING if child.born else State.WAITING
        case Phase.STARTING:
            return State.STARTING
        case Phase.RUNNING:
            return State.RUNNING
        case Phase.STOPPING:
            return State.STOPPING
        case Phase.LOST:
            return State.UNKILLABLE


def state_of_supervisor(roster: Roster) -> State:
    match roster.mode:
        case Mode.BOOTING:
            return State.STARTING
        case Mode.RUNNING:
            return State.RUNNING
        case Mode.ENDING:
            return State.STOPPING
        case Mode.ENDED:
            return State.STOPPED


def child_node(roster: Roster, child: Child, now: float) -> Node:
    return Node(
        id=child.id,
        path=roster.path_of(child),
        kind=child.spec.kind,
        state=state_of(child),
        since=child.since,
        until=child.due if child.phase is Phase.WAITING and child.due > now else None,
        restarts=child.restarts,
        restarts_in_window=roster.window.count(now, child.id),
        intensity=roster.spec.intensity,
        last_error=child.last_error,
    )


def list_children(roster: Roster) -> tuple[ChildInfo, ...]:
    return tuple(
        ChildInfo(child.id, state_of(child), child.spec.kind, child.since, child.restarts)
        for child in roster.children.values()
    )


def count_children(roster: Roster) -> Counts:
    children = roster.children.values()
    supervisors = sum(child.spec.kind is Kind.SUPERVISOR for child in children)
    is_dynamic = roster.spec.strategy is Strategy.DYNAMIC
    return Counts(
        specs=1 if is_dynamic else len(children),
        active=sum(child.alive for child in children),
        supervisors=supervisors,
        workers=len(children) - supervisors,
    )


def _lines(node: Node, now: float, indent: str, below: str) -> Iterator[str]:
    yield f"{indent}{node.id}  {_words(node, now)}"
    for child in node.children:
        branch, gap = ("└─ ", "   ") if child is node.children[-1] else ("├─ ", "│  ")
        yield from _lines(child, now, below + branch, below + gap)


def _words(node: Node, now: float) -> str:
    state = node.state.value
    if node.until is not None and node.until > now:
        state = f"backing off {node.until - now:.1f} s"
    words = [state, f"for {now - node.since:.1f} s"]
    if node.strategy is not None:
        words.append(node.strategy.value)
    if node.restarts:
        in_window = f"{node.restarts_in_window}/{node.intensity} in window"
        words.append(f"restarts {node.restarts} ({in_window})")
    if node.last_error:
        words.append(f"last: {node.last_error}")
    return "  ".join(words)
