"""A fault fires when it should, and what could never fire is refused: tables, without a running system."""

from typing import Any

import pytest

from runtime.faults import POINTS, Action, Fault
from runtime.faults.fault import Occasion, Standing, decide, find_mistakes, matches
from runtime.faults.injector import known_facts
from runtime.faults.points import BEFORE_APPEND, BEFORE_REACT, EFFECTS

COUNTS = {"order": 2, "inventory": 2, "payment": 1}
AT_ORDER_1 = Occasion(BEFORE_REACT, "order", 1, (("OrderOpened", "o1"), ("PaymentTaken", "o2")))


def fault(**more: Any) -> Fault:
    return Fault(**{"point": BEFORE_REACT.name, "action": Action.RAISE, **more})


@pytest.mark.parametrize(
    ("selectors", "matched"),
    [
        ({}, True),
        ({"actor": "order"}, True),
        ({"actor": "payment"}, False),
        ({"shard": 1}, True),
        ({"shard": 0}, False),
        ({"fact": "OrderOpened"}, True),
        ({"fact": "OrderReserved"}, False),
        ({"order": "o2"}, True),
        ({"order": "o3"}, False),
        ({"fact": "PaymentTaken", "order": "o2"}, True),
        ({"fact": "PaymentTaken", "order": "o1"}, False),  # Each is there, but not in one fact.
        ({"actor": "order", "shard": 1, "fact": "OrderOpened", "order": "o1"}, True),
        ({"point": BEFORE_APPEND.name}, False),
    ],
)
def test_a_fault_is_for_those_that_all_its_selectors_name(
    selectors: dict[str, Any], matched: bool
) -> None:
    assert matches(fault(**selectors), AT_ORDER_1) is matched


def fired_at(one: Fault, times: int, occasion: Occasion = AT_ORDER_1) -> list[int]:
    """On which of so many occasions it fires, one a second."""
    standing, fired = Standing(ends_s=one.for_s), []
    for nth in range(times):
        standing, fires = decide(one, standing, occasion, float(nth))
        fired += [nth] if fires else []
    return fired


@pytest.mark.parametrize(
    ("trigger", "fired"),
    [
        ({}, [0]),
        ({"times": 3}, [0, 1, 2]),
        ({"times": 100, "for_s": 4.0}, [0, 1, 2, 3]),
    ],
)
def test_a_fault_fires_as_often_as_it_may_and_not_after_its_time(
    trigger: dict[str, Any], fired: list[int]
) -> None:
    assert fired_at(fault(**trigger), 10) == fired


def test_a_probability_is_kept_and_its_draws_depend_on_the_seed_alone() -> None:
    one = fault(times=10_000, probability=0.3, seed=7, for_s=10_000.0)
    fired = fired_at(one, 2_000)
    assert 500 < len(fired) < 700
    assert fired == fired_at(one, 2_000)
    other = fault(times=10_000, probability=0.3, seed=8, for_s=10_000.0)
    assert fired != fired_at(other, 2_000)


def test_those_whom_a_fault_is_not_about_change_nothing() -> None:
    standing = Standing(ends_s=60)
    assert decide(fault(actor="payment"), standing, AT_ORDER_1, 0) == (standing, False)


@pytest.mark.parametrize(
    ("wrong", "field", "told"),
    [
        ({"point": "shard.before-reacting"}, "point", "did you mean shard.before-react?"),
        ({"point": "nowhere at all"}, "point", "orders fault list"),
        ({"action": Action.DROP}, "action", "drop means nothing at shard.before-react"),
        ({"point": "tail.before-delivery", "actor": "order"}, "actor", "carries: fact, order"),
        ({"point": "log.before-take", "order": "o1"}, "order", "carries: nothing to select by"),
        ({"actor": "shipping"}, "actor", "order, inventory, payment"),
        ({"shard": 2}, "shard", "write 0 to 1"),
        ({"actor": "payment", "shard": 1}, "shard", "write 0 to 0"),
        ({"shard": -1}, "shard", "is -1"),
        ({"fact": "OrderOpen"}, "fact", "did you mean OrderOpened?"),
        ({"times": 0}, "times", "write 1 to"),
        ({"probability": 0.0}, "probability", "above 0"),
        ({"probability": float("nan")}, "probability", "above 0"),
        ({"for_s": 3601.0}, "for_s", "at most 3600"),
        ({"action": Action.DELAY, "duration_s": 0.0}, "duration_s", "above 0"),
        ({"action": Action.BLOCK, "duration_s": 61.0}, "duration_s", "at most 60"),
        ({"code": 256}, "code", "0 to 255"),
        ({"action": Action.KILL_BROKER}, "action", "no broker of its own"),
    ],
)
def test_what_could_never_fire_is_refused_with_what_to_write(
    wrong: dict[str, Any], field: str, told: str
) -> None:
    [mistake] = find_mistakes(fault(**wrong), COUNTS, known_facts(), has_broker=False)
    assert mistake.field == field
    assert told in mistake.message


def test_every_mistake_is_told_at_once() -> None:
    wrong = fault(actor="x", shard=9, fact="y", times=-1, probability=2.0, for_s=-1.0, code=-1)
    told = [m.field for m in find_mistakes(wrong, COUNTS, known_facts(), has_broker=True)]
    assert told == ["actor", "shard", "fact", "times", "probability", "for_s", "code"]


def test_the_tables_are_whole() -> None:
    assert set(EFFECTS) == set(Action)
    assert set().union(*(point.actions for point in POINTS.values())) == set(Action)
    for point in POINTS.values():
        if point.in_actor or Action.CRASH in point.actions:
            assert {"actor", "shard"} <= set(point.carries), point.name
        assert point.in_actor or Action.SWALLOW not in point.actions, point.name
