"""Every failpoint by name: where it is, what can be told apart there, and what can be done there. `orders fault list`.

A point stands on one side of a wait that matters: what happens if we fail, or hang, or die, exactly here?
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Action(StrEnum):
    """What a fault does when it fires."""

    RAISE = "raise"
    CRASH = "crash"
    DELAY = "delay"
    HANG = "hang"
    SWALLOW = "swallow"
    BLOCK = "block"
    DROP = "drop"
    DUPLICATE = "duplicate"
    KILL_BROKER = "kill-broker"
    PAUSE_BROKER = "pause-broker"
    EXIT = "exit"


EFFECTS: Final = {
    Action.RAISE: "raise an exception, as a bug at this place would",
    Action.CRASH: "let the supervisor fail the actor's shard: cancelled here, restarted after a back-off",
    Action.DELAY: "wait for `duration`",
    Action.HANG: "wait until cancelled, cleared, or out of time",
    Action.SWALLOW: "crash the shard, and ignore the cancellation: found unkillable, the process ends with 70",
    Action.BLOCK: "keep the event loop busy for `duration`: the watchdog shows stacks after 5 s, ends the process "
    "with 70 after 10",
    Action.DROP: "lose the message (request, answer) that passes",
    Action.DUPLICATE: "let the message (request) pass twice",
    Action.KILL_BROKER: "SIGKILL the embedded nats-server",
    Action.PAUSE_BROKER: "SIGSTOP the embedded nats-server for `duration`",
    Action.EXIT: "end the process at once with `code`, as kill -9 does",
}

LASTING: Final = frozenset({Action.DELAY, Action.BLOCK, Action.PAUSE_BROKER})
"""Actions that have a duration."""


@dataclass(frozen=True, slots=True)
class Point:
    """`carries` are the selectors that mean something here; what a selector cannot tell apart is refused."""

    name: str
    where: str
    carries: tuple[str, ...]
    actions: frozenset[Action]
    in_actor: bool = False
    """Reached by a task of the shard itself, which a crash therefore ends at this very place."""


_ANYWHERE = frozenset(
    {
        Action.RAISE,
        Action.DELAY,
        Action.HANG,
        Action.BLOCK,
        Action.KILL_BROKER,
        Action.PAUSE_BROKER,
        Action.EXIT,
    }
)
_SHARD = ("actor", "shard")
_FACT = ("fact", "order")


def _in_shard(name: str, where: str, carries: tuple[str, ...], *more: Action) -> Point:
    actions = _ANYWHERE | {Action.CRASH, Action.SWALLOW, *more}
    return Point(name, where, (*_SHARD, *carries), actions, in_actor=True)


def _point(name: str, where: str, carries: tuple[str, ...], *more: Action) -> Point:
    return Point(name, where, carries, _ANYWHERE | set(more))


BEFORE_TAKE_OVER: Final = _in_shard(
    "shard.before-take-over", "a shard starts; it owns nothing yet", ()
)
AFTER_TAKE_OVER: Final = _in_shard(
    "shard.after-take-over",
    "its predecessor is fenced off, its memory recalled; it hears nothing yet",
    (),
)
BEFORE_REACT: Final = _in_shard(
    "shard.before-react",
    "a fact is about to be heard; an exception counts as the fact's, and three set it aside",
    _FACT,
)
BEFORE_APPEND: Final = _in_shard(
    "shard.before-append", "decided in memory, nothing stored; carries what will be said", _FACT
)
AFTER_APPEND: Final = _in_shard(
    "shard.after-append", "stored, nobody answered or called yet; carries what was said", _FACT
)
BEFORE_LETTER: Final = _in_shard(
    "shard.before-letter", "a dead letter is about to be stored", _FACT
)
BEFORE_SNAPSHOT: Final = _in_shard(
    "shard.before-snapshot", "a snapshot is taken, and not stored", ()
)
AFTER_SNAPSHOT: Final = _in_shard("shard.after-snapshot", "a snapshot is stored", ())

BEFORE_DELIVERY: Final = _point(
    "tail.before-delivery", "a record is read, its facts in no mailbox yet", _FACT, Action.DUPLICATE
)
WIRE_MESSAGE: Final = Point(
    "wire.message",
    "a record comes off the broker's connection; the reader counts, and notices",
    _SHARD,
    frozenset({Action.DROP, Action.DUPLICATE}),
)

BEFORE_LOG_APPEND: Final = _point(
    "log.before-append",
    "an append leaves for the broker; lost, it never happened",
    (*_SHARD, *_FACT),
    Action.CRASH,
    Action.DROP,
    Action.DUPLICATE,
)
AFTER_LOG_APPEND: Final = _point(
    "log.after-append",
    "the broker has stored it; lost, nobody here knows",
    (*_SHARD, *_FACT),
    Action.CRASH,
    Action.DROP,
)
BEFORE_TAKE: Final = _point("log.before-take", "a reader asks for entries", (), Action.DROP)
AFTER_TAKE: Final = _point("log.after-take", "entries have arrived", (), Action.DROP)
BEFORE_VIEWS: Final = _point(
    "log.before-views", "views of orders leave for the broker", ("order",), Action.DROP
)
AFTER_VIEWS: Final = _point(
    "log.after-views", "the broker has stored them", ("order",), Action.DROP
)

BEFORE_REQUEST: Final = _in_shard(
    "gateway.before-request",
    "a request (fact: Charge, Refund, Enquiry) leaves for the payment provider",
    _FACT,
    Action.DROP,
    Action.DUPLICATE,
)
AFTER_REQUEST: Final = _in_shard(
    "gateway.after-request",
    "the provider has done it; lost, the money may be taken and nobody here knows",
    _FACT,
    Action.DROP,
)

BEFORE_ASK: Final = _point(
    "http.before-ask",
    "a request (fact: OrderCreated, CancelAsked) is valid, and not put to its shard; lost, it gets 503",
    (*_SHARD, *_FACT),
    Action.CRASH,
    Action.DROP,
    Action.DUPLICATE,
)
BEFORE_ANSWER: Final = _point(
    "http.before-answer",
    "what was asked for is durable, and the 202 not sent; lost, it gets 503",
    (*_SHARD, *_FACT),
    Action.CRASH,
    Action.DROP,
)

POINTS: Final = {
    point.name: point
    for point in (
        BEFORE_TAKE_OVER,
        AFTER_TAKE_OVER,
        BEFORE_REACT,
        BEFORE_APPEND,
        AFTER_APPEND,
        BEFORE_LETTER,
        BEFORE_SNAPSHOT,
        AFTER_SNAPSHOT,
        BEFORE_DELIVERY,
        WIRE_MESSAGE,
        BEFORE_LOG_APPEND,
        AFTER_LOG_APPEND,
        BEFORE_TAKE,
        AFTER_TAKE,
        BEFORE_VIEWS,
        AFTER_VIEWS,
        BEFORE_REQUEST,
        AFTER_REQUEST,
        BEFORE_ASK,
        BEFORE_ANSWER,
    )
}
