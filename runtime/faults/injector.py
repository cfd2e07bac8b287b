"""The faults of one process: armed by somebody, met at the points, and carried out there.

A point asks `wants` first, so that nothing is even looked up where nothing is armed; without `FAULTS=on` there is no
`Faults` at all, and a point is one comparison with None.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any

import structlog
import trio
from betterproto import Message

from actors import ACTORS, Place, Terms
from actors.actor import CallAnswered, Charge, Due, Enquiry, Refund
from messages.routing import shard_of
from runtime.faults.fault import (
    SELECTORS,
    Fault,
    Mistake,
    MistakenFaultError,
    Occasion,
    Standing,
    decide,
    find_mistakes,
)
from runtime.faults.points import LASTING, POINTS, Action, Point
from runtime.recall import Address
from runtime.tracing import Tracer

ARMED_MAX = 100

_logger = structlog.get_logger("runtime.faults")


class InjectedFaultError(Exception):
    """A failure that somebody asked for."""


class TooManyFaultsError(Exception):
    """As many are armed as may be; clear some."""


class NoSuchFaultError(LookupError):
    """No fault of this id is armed: it was cleared, or its time is over."""


class Effect(Enum):
    """What whoever passes a point has to do with the message that passes with it."""

    NONE = "none"
    DROP = "drop"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Hands:
    """What a process lets faults act with. `broker_pid` is None where the broker is not ours to break."""

    counts: Mapping[str, int]
    crash: Callable[[Address, Exception], None]
    broker_pid: Callable[[], int | None] | None = None
    exit: Callable[[int], object] = os._exit


@dataclass(slots=True, eq=False)
class Armed:
    """One fault that is armed, and how it stands."""

    id: str
    fault: Fault
    standing: Standing
    cleared: trio.Event = field(default_factory=trio.Event)

    def describe(self, now_s: float) -> dict[str, Any]:
        """As JSON: the fields of the fault that matter for it, and how it stands."""
        fault = self.fault
        said: dict[str, Any] = {"id": self.id, "point": fault.point, "action": fault.action}
        said |= {name: value for name in SELECTORS if (value := getattr(fault, name)) is not None}
        said |= {"times": fault.times, "probability": fault.probability, "seed": fault.seed}
        if fault.action in LASTING:
            said["duration_s"] = fault.duration_s
        if fault.action is Action.EXIT:
            said["code"] = fault.code
        left_s = round(self.standing.ends_s - now_s, 3)
        return said | {"met": self.standing.met, "fired": self.standing.fired, "ends_in_s": left_s}


class Faults:
    """All that is armed in this process."""

    def __init__(self, hands: Hands, tracer: Tracer | None = None) -> None:
        self.fired: Counter[tuple[str, str]] = Counter()
        """How often, by point and action, since the start."""
        self.passed: Counter[str] = Counter()
        """How often each point was passed while something was armed there."""
        self.facts = known_facts()
        self._hands = hands
        self._tracer = tracer or Tracer()
        self._armed: dict[str, Armed] = {}
        self._by_point: dict[str, list[Armed]] = {}
        self._numbers = count(1)

    # --- for whoever arms them ---

    def inject(self, point: str, action: str, **more: Any) -> Armed:
        """`arm`, from words; the further ones are the fields of `Fault`."""
        return self.arm(Fault(point, Action(action), **more))

    def arm(self, fault: Fault) -> Armed:
        """Let a fault happen from now on, until it is cleared or its time is over.

        Raises:
            MistakenFaultError: it could never fire, or does not say what it means.
            TooManyFaultsError: `ARMED_MAX` are armed already.
        """
        if mistakes := self.find_mistakes(fault):
            raise MistakenFaultError(mistakes)
        if len(self.active()) >= ARMED_MAX:
            raise TooManyFaultsError(f"{ARMED_MAX} faults are armed, which is the most; clear some")
        standing = Standing(ends_s=trio.current_time() + fault.for_s)
        armed = Armed(f"f{next(self._numbers)}", fault, standing)
        self._armed[armed.id] = armed
        self._by_point.setdefault(fault.point, []).append(armed)
        _logger.warning("fault_armed", **_shown(armed))
        return armed

    def find_mistakes(self, fault: Fault) -> list[Mistake]:
        """What would keep this process from arming a fault."""
        hands = self._hands
        has_broker = hands.broker_pid is not None
        return list(find_mistakes(fault, hands.counts, self.facts, has_broker=has_broker))

    def active(self) -> list[Armed]:
        """What is armed now, oldest first. One that has fired as often as it may stays until its time is over."""
        now_s = trio.current_time()
        for armed in [one for one in self._armed.values() if one.standing.ends_s <= now_s]:
            self._forget(armed)
        return list(self._armed.values())

    def clear(self, fault_id: str) -> None:
        """Disarm one fault, and let go whoever hangs in it.

        Raises:
            NoSuchFaultError: it is not armed.
        """
        self.active()
        armed = self._armed.get(fault_id)
        if armed is None:
            raise NoSuchFaultError(fault_id)
        self._forget(armed)
        armed.cleared.set()
        _logger.warning("fault_cleared", **_shown(armed))

    def clear_all(self) -> None:
        for armed in self.active():
            self.clear(armed.id)

    def _forget(self, armed: Armed) -> None:
        del self._armed[armed.id]
        self._by_point[armed.fault.point].remove(armed)

    # --- for the points ---

    def wants(self, point: Point) -> bool:
        """True when something is armed there: only then is it worth saying who passes."""
        return bool(self._by_point.get(point.name))

    def occasion(self, point: Point, actor: str, fact: str, order_id: str) -> Occasion:
        """Somebody passes on behalf of the shard that owns an order."""
        shard = shard_of(order_id, self._hands.counts[actor])
        return Occasion(point, actor, shard, ((fact, order_id),))

    async def reach(self, occasion: Occasion) -> Effect:
        """Pass a point: wait, fail or die there as whatever fires has it. Several faults act in turn, oldest first.

        Raises:
            InjectedFaultError: that was asked for.
        """
        effect = Effect.NONE
        for armed in self._firing(occasion):
            done = await self._carry_out(armed, occasion)
            effect = done if effect is Effect.NONE else effect
        return effect

    def reach_at_once(self, occasion: Occasion) -> Effect:
        """Pass a point where nobody can wait: messages can be lost and doubled there, no more."""
        effect = Effect.NONE
        for armed in self._firing(occasion):
            effect = Effect(armed.fault.action)
        return effect

    def _firing(self, occasion: Occasion) -> Iterable[Armed]:
        self.passed[occasion.point.name] += 1
        for armed in tuple(self._by_point.get(occasion.point.name, ())):
            now_s = trio.current_time()
            armed.standing, fires = decide(armed.fault, armed.standing, occasion, now_s)
            if fires:
                self._tell(armed, occasion)
                yield armed

    def _tell(self, armed: Armed, occasion: Occasion) -> None:
        fault = armed.fault
        self.fired[fault.point, fault.action] += 1
        fact, order_id = next(iter(occasion.about), ("", ""))
        shard = "" if occasion.shard is None else f"{occasion.actor}.{occasion.shard}"
        met = {"at": shard, "fact": fact, "order_id": order_id}
        said = {**_shown(armed), **{name: value for name, value in met.items() if value}}
        _logger.warning("fault_fired", **said)
        self._tracer.span_fault(said)

    async def _carry_out(self, armed: Armed, occasion: Occasion) -> Effect:
        fault = armed.fault
        match fault.action:
            case Action.RAISE:
                raise _injected(armed)
            case Action.CRASH:
                self._crash(armed, occasion)
                if occasion.point.in_actor:
                    await _hang(armed)
            case Action.SWALLOW:
                self._crash(armed, occasion)
                with trio.CancelScope(shield=True):
                    await _hang(armed)
            case Action.DELAY:
                await trio.sleep(fault.duration_s)
            case Action.HANG:
                await _hang(armed)
            case Action.BLOCK:
                time.sleep(fault.duration_s)  # noqa: ASYNC251  # To block the loop is what it is for.
            case Action.KILL_BROKER:
                self._signal_broker(signal.SIGKILL)
            case Action.PAUSE_BROKER:
                self._pause_broker(fault.duration_s)
            case Action.EXIT:
                self._hands.exit(fault.code)
                await (
                    trio.sleep_forever()
                )  # Where the process is a test's, and its end a cancellation.
            case Action.DROP | Action.DUPLICATE:
                return Effect(fault.action)
        return Effect.NONE

    def _crash(self, armed: Armed, occasion: Occasion) -> None:
        assert occasion.shard is not None
        self._hands.crash(Address(occasion.actor, occasion.shard), _injected(armed))

    def _pause_broker(self, duration_s: float) -> None:
        pid = self._signal_broker(signal.SIGSTOP)
        if pid is not None:
            # A thread, since the loop that would wait may be blocked, and whoever passed may be cancelled.
            wake = threading.Timer(duration_s, self._signal_broker, (signal.SIGCONT, pid))
            wake.daemon = True
            wake.start()

    def _signal_broker(self, number: signal.Signals, only: int | None = None) -> int | None:
        """Send a signal to the broker, or to `only` this one; returns who got it, None where nobody did."""
        assert self._hands.broker_pid is not None
        pid = self._hands.broker_pid()
        if pid is None or only not in (None, pid):
            return None  # It has just gone by itself.
        os.kill(pid, number)
        return pid


def known_facts() -> frozenset[str]:
    """Everything that a shard can hear, or a gateway be asked for, by name."""
    heard: set[type[Message]] = set()
    for make in ACTORS.values():
        heard |= make(Terms(), Place(0, 1)).hears.keys()
    others = (Charge, Refund, Enquiry, CallAnswered, Due)
    return frozenset(kind.__name__ for kind in (*heard, *others))


def describe_points() -> list[dict[str, Any]]:
    """The table of points as JSON."""
    return [
        {
            "name": point.name,
            "where": point.where,
            "carries": list(point.carries),
            "actions": sorted(point.actions),
        }
        for point in POINTS.values()
    ]


def _injected(armed: Armed) -> InjectedFaultError:
    return InjectedFaultError(f"injected at {armed.fault.point} (fault {armed.id})")


def _shown(armed: Armed) -> dict[str, Any]:
    return armed.describe(trio.current_time())


async def _hang(armed: Armed) -> None:
    with trio.move_on_at(armed.standing.ends_s):
        await armed.cleared.wait()
