"""A schedule: who orders what, and what goes wrong when. A value: to be drawn, shown, cut down and replayed."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

SKUS: Final = {"a": 60, "b": 60, "c": 7, "d": 2}
"""What is on the shelf at first. Of `c` and `d` there is not enough for everybody."""


class Way(StrEnum):
    """How an order comes in."""

    ASK = "ask"  # At the desk, by a customer who asks again until there is an answer.
    OPEN = "open"  # As a message that nobody asks about.


class Damage(StrEnum):
    """What is wrong with the bytes of an order on the open way."""

    NONE = ""
    TRUNCATED = "truncated"
    GARBAGE = "garbage"
    ASTRAY = "astray"  # The subject names another order than the body.
    FALSE_TOTAL = "false total"


@dataclass(frozen=True, slots=True)
class Order:
    """One order, and all that its customer does about it. The times after `at_ms` count from it."""

    id: str
    at_ms: int
    lines: tuple[tuple[str, int], ...]
    token: str = "tok_ok"  # noqa: S105  # It scripts the provider, and opens nothing.
    way: Way = Way.ASK
    damage: Damage = Damage.NONE
    again_ms: tuple[int, ...] = ()
    """Placed once more, the same."""
    clash_ms: int | None = None
    """Something else is placed under the same id."""
    cancel_ms: int | None = None

    def __str__(self) -> str:
        lines = " ".join(f"{number} {sku}" for sku, number in self.lines)
        said = [f"{self.at_ms:>6} ms  {self.id}: {lines}, {self.token}, by {self.way}"]
        said += [self.damage] if self.damage else []
        said += [f"again {ms} ms later" for ms in self.again_ms]
        said += [] if self.clash_ms is None else [f"another body {self.clash_ms} ms later"]
        said += [] if self.cancel_ms is None else [f"cancelled {self.cancel_ms} ms later"]
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Recount:
    """Somebody counts a stock item."""

    at_ms: int
    sku: str
    on_hand: int

    def __str__(self) -> str:
        return f"{self.at_ms:>6} ms  {self.on_hand} of {self.sku} are counted"


class Kind(StrEnum):
    """What can go wrong. The first five happen to the one message that passes at that moment."""

    LOSE = "lose"
    RESET = "reset"
    LATE = "late"
    TWICE = "twice"
    ERROR = "error"
    CRASH = "crash"
    RAISE = "raise"
    KILL = "kill"
    STOP = "stop"
    RIVAL = "rival"
    PARTITION = "partition"
    OUTAGE = "outage"
    PAUSE = "pause"
    DOWN = "down"
    JUMP = "jump"


EFFECTS: Final = {
    Kind.LOSE: "the message is lost; whoever waits for it finds out by his own time-out",
    Kind.RESET: "the message is lost, and whoever waits for it is told at once",
    Kind.LATE: "the message arrives `for_ms` later, when its sender may have given up or be dead",
    Kind.TWICE: "the message arrives twice",
    Kind.ERROR: "the provider answers 500 whatever it has done; elsewhere a reset",
    Kind.CRASH: "`target` (a shard, the tail, the views) is cancelled where it stands, and fails; "
    "again and again for `for_ms`",
    Kind.RAISE: "`target` (a shard at a point of its loop) fails there, next time it passes",
    Kind.KILL: "kill -9 of the process; the next one starts `for_ms` later",
    Kind.STOP: "SIGTERM to the process; the next one starts `for_ms` after its end",
    Kind.RIVAL: "another process starts beside the one that runs",
    Kind.PARTITION: "nothing gets from the process to the broker or back for `for_ms`; another starts meanwhile",
    Kind.OUTAGE: "every connection to the broker breaks, and can be renewed `for_ms` later",
    Kind.PAUSE: "the broker stands still for `for_ms`, and then does all that it was asked",
    Kind.DOWN: "the payment provider cannot be reached for `for_ms`",
    Kind.JUMP: "the broker's clock jumps by `for_ms`",
}

OF_MESSAGES: Final = (Kind.LOSE, Kind.RESET, Kind.LATE, Kind.TWICE, Kind.ERROR)


class When(StrEnum):
    """What is counted until a fault comes: virtual time, steps of any task, messages of one sort and their answers."""

    MS = "ms"
    STEP = "step"
    APPEND = "append"
    READ = "read"
    DELIVERY = "delivery"
    VIEWS = "views"
    SNAPSHOT = "snapshot"
    CALL = "call"


CHANNELS: Final = (
    When.APPEND,
    When.READ,
    When.DELIVERY,
    When.VIEWS,
    When.SNAPSHOT,
    When.CALL,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong when `at` of `when` have been counted."""

    kind: Kind
    when: When
    at: int
    for_ms: int = 0
    target: str = ""

    def __str__(self) -> str:
        when = f"at {self.at} ms" if self.when is When.MS else f"at {self.when} {self.at}"
        lasting = f" {self.for_ms} ms" if self.for_ms else ""
        return f"{when}: {self.kind}{lasting}{' ' + self.target if self.target else ''}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the world is like. Narrow limits let few orders meet what takes thousands in earnest."""

    shards: tuple[int, int, int] = (2, 2, 1)
    """Of order, inventory and payment."""
    latency_ms: float = 0.0
    """Up to so long each message travels; 0 is the least that lets others run meanwhile."""
    payment_deadline_ms: int = 15 * 60_000
    reservation_ttl_ms: int = 30 * 60_000
    narrow: bool = True


@dataclass(frozen=True, slots=True)
class Schedule:
    """All of one run. `seed` decides what is left to chance: the order of tasks, latencies, jitter."""

    seed: int
    conditions: Conditions = field(default_factory=Conditions)
    orders: tuple[Order, ...] = ()
    recounts: tuple[Recount, ...] = ()
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        c = self.conditions
        shards = "/".join(map(str, c.shards))
        world = (
            f"seed {self.seed}: {shards} shards, messages take up to {c.latency_ms:g} ms, "
            f"{'narrow' if c.narrow else 'usual'} limits, payment deadline "
            f"{c.payment_deadline_ms / 1000:g} s, reservations {c.reservation_ttl_ms / 1000:g} s"
        )
        return "\n  ".join(map(str, (world, *self.orders, *self.recounts, *self.faults)))
