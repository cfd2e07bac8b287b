"""A fault as a value, and whether it fires: pure functions of what it is, how often it was met, and the time."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from runtime.faults.points import LASTING, POINTS, Action, Point

FOR_S_MAX = 3600.0  # Nobody should find a fault that somebody forgot.
FOR_S = 60.0
TIMES_MAX = 1_000_000
BLOCK_S_MAX = 60.0  # Nothing can end it sooner, and the watchdog ends the process after ten.
SELECTORS = ("actor", "shard", "fact", "order")


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do (`action`), where (`point`), to whom (the selectors, None for all), how often and how long.

    It fires at most `times`, each time it is met with `probability` (drawn from `seed`, so that a run repeats), and
    not after `for_s`; a task that hangs in it is let go then, too. `duration_s` is of delay, block and pause-broker,
    `code` of exit.
    """

    point: str
    action: Action
    actor: str | None = None
    shard: int | None = None
    fact: str | None = None
    order: str | None = None
    times: int = 1
    probability: float = 1.0
    seed: int = 0
    for_s: float = FOR_S
    duration_s: float = 1.0
    code: int = 1


@dataclass(frozen=True, slots=True)
class Occasion:
    """Somebody passes a point. `about` are pairs of fact and order; either is empty where there is none."""

    point: Point
    actor: str = ""
    shard: int | None = None
    about: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a fault stands; the times are of the monotonic clock."""

    ends_s: float
    met: int = 0
    fired: int = 0


class Mistake(NamedTuple):
    """What is wrong with one field of a fault, and what to write instead."""

    field: str
    message: str


class MistakenFaultError(ValueError):
    """A fault that could never fire, or that nobody can mean. Nothing was armed."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(f"{field}: {message}" for field, message in self.mistakes))


def decide(
    fault: Fault, standing: Standing, occasion: Occasion, now_s: float
) -> tuple[Standing, bool]:
    """Whether a fault fires now that somebody passes, and how it stands then."""
    if standing.fired >= fault.times or now_s >= standing.ends_s or not matches(fault, occasion):
        return standing, False
    # A number for each occasion, and none for the others: who else passes changes nothing.
    drawn = Random(f"{fault.seed}.{standing.met}").random()  # noqa: S311  # It has to repeat.
    fires = drawn < fault.probability
    return replace(standing, met=standing.met + 1, fired=standing.fired + fires), fires


def matches(fault: Fault, occasion: Occasion) -> bool:
    """True when the occasion is one that the fault is about."""
    if fault.point != occasion.point.name:
        return False
    if fault.actor not in (None, occasion.actor) or fault.shard not in (None, occasion.shard):
        return False
    if fault.fact is None and fault.order is None:
        return True
    return any(
        fault.fact in (None, fact) and fault.order in (None, order)
        for fact, order in occasion.about
    )


def find_mistakes(
    fault: Fault, counts: Mapping[str, int], facts: Iterable[str], *, has_broker: bool
) -> Iterator[Mistake]:
    """Everything that is wrong with a fault where `counts` shards run and `facts` are known."""
    point = POINTS.get(fault.point)
    if point is None:
        yield Mistake("point", f"there is no {fault.point!r}{_nearest(fault.point, POINTS)}")
    else:
        yield from _unfit(fault, point)
    if fault.action in (Action.KILL_BROKER, Action.PAUSE_BROKER) and not has_broker:
        message = "this instance has no broker of its own; leave NATS_URL unset, or break yours"
        yield Mistake("action", message)
    if fault.actor is not None and fault.actor not in counts:
        yield Mistake("actor", f"there is no {fault.actor!r}; write one of: {', '.join(counts)}")
    shards = counts.get(fault.actor or "", max(counts.values(), default=0))
    if fault.shard is not None and not 0 <= fault.shard < shards:
        yield Mistake("shard", f"is {fault.shard}; write 0 to {shards - 1}")
    if fault.fact is not None and fault.fact not in (known := set(facts)):
        yield Mistake("fact", f"there is no {fault.fact!r}{_nearest(fault.fact, known)}")
    yield from _out_of_range(fault)


def _unfit(fault: Fault, point: Point) -> Iterator[Mistake]:
    if fault.action not in point.actions:
        possible = ", ".join(sorted(point.actions))
        message = f"{fault.action} means nothing at {point.name}; write one of: {possible}"
        yield Mistake("action", message)
    for selector in SELECTORS:
        if getattr(fault, selector) is not None and selector not in point.carries:
            carried = ", ".join(point.carries) or "nothing to select by"
            yield Mistake(selector, f"cannot be told at {point.name}, which carries: {carried}")


def _out_of_range(fault: Fault) -> Iterator[Mistake]:
    if not 1 <= fault.times <= TIMES_MAX:
        yield Mistake("times", f"is {fault.times}; write 1 to {TIMES_MAX}")
    if not 0 < fault.probability <= 1:
        yield Mistake("probability", f"is {fault.probability}; write a number above 0, at most 1")
    if not 0 < fault.for_s <= FOR_S_MAX:
        yield Mistake("for_s", f"is {fault.for_s:g}; write seconds above 0, at most {FOR_S_MAX:g}")
    most_s = BLOCK_S_MAX if fault.action is Action.BLOCK else FOR_S_MAX
    if fault.action in LASTING and not 0 < fault.duration_s <= most_s:
        message = f"is {fault.duration_s:g}; write seconds above 0, at most {most_s:g}"
        yield Mistake("duration_s", message)
    if not 0 <= fault.code <= 255:
        yield Mistake("code", f"is {fault.code}; write an exit code from 0 to 255")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else "; `orders fault list` shows what there is"
