"""From a seed to a schedule: orders likely to get in each other's way, and faults likely to hit them."""

from random import Random
from typing import Final, TypeVar

from runtime.explore.schedule import (
    CHANNELS,
    OF_MESSAGES,
    SKUS,
    Conditions,
    Damage,
    Fault,
    Kind,
    Order,
    Recount,
    Schedule,
    Way,
    When,
)

T = TypeVar("T")
Weights = dict[T, int]

TOKENS: Final[Weights[str]] = {
    "tok_ok": 8,
    "tok_declined": 2,
    "tok_unheard_of": 1,
    "tok_slow": 3,
    "tok_timeout_after_charge": 2,
    "tok_error_after_charge": 2,
    "tok_flaky": 2,
}
DAMAGES: Final[Weights[Damage]] = {
    Damage.NONE: 8,
    Damage.TRUNCATED: 1,
    Damage.GARBAGE: 1,
    Damage.ASTRAY: 1,
    Damage.FALSE_TOTAL: 1,
}
FAULTS_AT_ONCE: Final[Weights[int]] = {0: 1, 1: 3, 2: 4, 3: 4, 4: 3, 5: 2, 6: 2, 8: 1}
KINDS: Final[Weights[Kind]] = {
    Kind.LOSE: 6,
    Kind.RESET: 6,
    Kind.LATE: 7,
    Kind.TWICE: 5,
    Kind.ERROR: 2,
    Kind.CRASH: 8,
    Kind.RAISE: 7,
    Kind.KILL: 10,
    Kind.STOP: 3,
    Kind.RIVAL: 3,
    Kind.PARTITION: 5,
    Kind.OUTAGE: 4,
    Kind.PAUSE: 4,
    Kind.DOWN: 3,
    Kind.JUMP: 2,
}
# As many as an undisturbed run of a few orders has, and somewhat more for recoveries.
COUNTED_MAX: Final[Weights[When]] = {
    When.MS: 6_000,
    When.STEP: 3_000,
    When.APPEND: 150,
    When.READ: 120,
    When.DELIVERY: 60,
    When.VIEWS: 24,
    When.SNAPSHOT: 30,
    When.CALL: 30,
}
CHANCES: Final[Weights[When]] = {
    When.APPEND: 10,
    When.READ: 3,
    When.DELIVERY: 5,
    When.VIEWS: 2,
    When.SNAPSHOT: 2,
    When.CALL: 10,
}
ANYTIME: Final[Weights[When]] = {**dict.fromkeys(CHANNELS, 1), When.MS: 1, When.STEP: 2}
POINTS: Final = (
    "shard.before-take-over",
    "shard.after-take-over",
    "shard.before-react",
    "shard.before-react",
    "shard.before-append",
    "shard.after-append",
    "shard.before-letter",
    "shard.before-snapshot",
    "shard.after-snapshot",
)
JUMPS_MS: Final = (-3_600_000, -60_000, -1_000, 1_000, 60_000, 3_600_000)
CALL_LATE_MS: Final = (
    6_000,
    11_000,
    15_000,
)  # A provider is done with it within two call time-outs.


def draw(seed: int) -> Schedule:
    """The schedule of a seed; always the same."""
    dice = Random(seed)  # noqa: S311  # It has to repeat, and keeps no secret.
    conditions = _conditions(dice)
    orders = tuple(_order(dice, number) for number in range(1, dice.randint(4, 12) + 1))
    recounts = tuple(_recount(dice) for _ in range(dice.choice((0, 0, 1, 2))))
    faults = tuple(_fault(dice, conditions) for _ in range(_pick(dice, FAULTS_AT_ONCE)))
    return Schedule(seed, conditions, orders, recounts, faults)


def _conditions(dice: Random) -> Conditions:
    deadline_ms, ttl_ms = dice.choice(
        ((900_000, 1_800_000), (900_000, 1_800_000), (20_000, 45_000))
    )
    return Conditions(
        shards=dice.choice(((2, 2, 1), (2, 2, 1), (1, 1, 1), (2, 1, 2))),
        latency_ms=dice.choice((0.0, 0.0, 1.0, 20.0)),
        payment_deadline_ms=deadline_ms,
        reservation_ttl_ms=ttl_ms,
        narrow=dice.random() < 0.8,
    )


def _order(dice: Random, number: int) -> Order:
    skus = dice.sample(sorted(SKUS), dice.choice((1, 1, 2, 3)))
    way = _pick(dice, {Way.ASK: 4, Way.OPEN: 1})
    at_ms = dice.randint(0, dice.choice((0, 50, 3_000)))
    again = dice.choice((0, 0, 0, 1, 2))
    return Order(
        id=f"o{number}",
        at_ms=at_ms,
        lines=tuple((sku, dice.randint(1, 3)) for sku in skus),
        token=_pick(dice, TOKENS),
        way=way,
        damage=_pick(dice, DAMAGES) if way is Way.OPEN else Damage.NONE,
        again_ms=tuple(_moment_ms(dice) for _ in range(again)),
        clash_ms=_moment_ms(dice) if dice.random() < 0.1 else None,
        cancel_ms=_moment_ms(dice) if dice.random() < 0.3 else None,
    )


def _recount(dice: Random) -> Recount:
    return Recount(dice.randint(0, 3_000), dice.choice(sorted(SKUS)), dice.randint(0, 20))


def _fault(dice: Random, conditions: Conditions) -> Fault:
    kind = _pick(dice, KINDS)
    when = _pick(dice, CHANCES if kind in OF_MESSAGES else ANYTIME)
    at = 1 + int(COUNTED_MAX[when] * dice.random() ** 1.5)  # Earlier ones are surer to come.
    return Fault(kind, when, at, _for_ms(dice, kind, when), _target(dice, kind, conditions))


def _for_ms(dice: Random, kind: Kind, when: When) -> int:
    match kind:
        case Kind.LATE if when is When.CALL:
            return dice.choice((dice.randint(1, 1_000), *CALL_LATE_MS))
        case Kind.LATE:
            return dice.randint(1, dice.choice((20, 1_000, 8_000, 40_000)))
        case Kind.CRASH:
            return dice.choice((0, 0, 0, 0, 0, 40_000))
        case Kind.KILL | Kind.STOP:
            return dice.choice((0, 10, 300, 5_000))
        case Kind.PARTITION | Kind.OUTAGE | Kind.PAUSE:
            return dice.choice((1, 100, 2_000, 7_000, 20_000))
        case Kind.DOWN:
            return dice.choice((500, 5_000, 30_000, 120_000))
        case Kind.JUMP:
            return dice.choice(JUMPS_MS)
        case _:
            return 0


def _target(dice: Random, kind: Kind, conditions: Conditions) -> str:
    counts = zip(("order", "inventory", "payment"), conditions.shards, strict=True)
    shards = [f"{actor}.{number}" for actor, count in counts for number in range(count)]
    match kind:
        case Kind.CRASH:
            return dice.choice((*shards, "tail", "views"))
        case Kind.RAISE:
            return f"{dice.choice(shards)} {dice.choice(POINTS)}"
        case _:
            return ""


def _moment_ms(dice: Random) -> int:
    return dice.randint(0, dice.choice((0, 30, 2_000, 40_000)))


def _pick(dice: Random, weights: Weights[T]) -> T:
    return dice.choices(list(weights), list(weights.values()))[0]
