"""Hypothesis drives the same world with schedules of its own, so that what fails shrinks by itself."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.explore import run_schedule
from runtime.explore.draw import CALL_LATE_MS, JUMPS_MS, POINTS, TOKENS
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

SHARDS = ("order.0", "order.1", "inventory.0", "inventory.1", "payment.0")
PAUSES_MS = (1, 300, 2_000, 7_000, 20_000)

moments_ms = st.sampled_from((0, 1, 20, 400, 2_000, 30_000))


@st.composite
def orders(draw: st.DrawFn) -> tuple[Order, ...]:
    return tuple(draw(order(number)) for number in range(1, draw(st.integers(1, 6)) + 1))


@st.composite
def order(draw: st.DrawFn, number: int) -> Order:
    skus = draw(st.lists(st.sampled_from(sorted(SKUS)), min_size=1, max_size=3, unique=True))
    way = draw(st.sampled_from(Way))
    return Order(
        id=f"o{number}",
        at_ms=draw(st.sampled_from((0, 10, 500))),
        lines=tuple((sku, draw(st.integers(1, 3))) for sku in skus),
        token=draw(st.sampled_from(sorted(TOKENS))),
        way=way,
        damage=draw(st.sampled_from(Damage)) if way is Way.OPEN else Damage.NONE,
        again_ms=tuple(draw(st.lists(moments_ms, max_size=2))),
        clash_ms=draw(st.none() | moments_ms),
        cancel_ms=draw(st.none() | moments_ms),
    )


@st.composite
def fault(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(Kind))
    when = draw(st.sampled_from(CHANNELS if kind in OF_MESSAGES else tuple(When)))
    match kind:
        case Kind.JUMP:
            for_ms = draw(st.sampled_from(JUMPS_MS))
        case Kind.LATE if when is When.CALL:
            for_ms = draw(st.sampled_from(CALL_LATE_MS))
        case _:
            for_ms = draw(st.sampled_from(PAUSES_MS))
    target = ""
    if kind is Kind.CRASH:
        target = draw(st.sampled_from((*SHARDS, "tail", "views")))
    elif kind is Kind.RAISE:
        target = f"{draw(st.sampled_from(SHARDS))} {draw(st.sampled_from(sorted(set(POINTS))))}"
    most = 2_000 if when in (When.MS, When.STEP) else 60
    return Fault(kind, when, draw(st.integers(1, most)), for_ms, target)


schedules = st.builds(
    Schedule,
    seed=st.integers(0, 2**32),
    conditions=st.builds(
        Conditions,
        latency_ms=st.sampled_from((0.0, 1.0, 20.0)),
        narrow=st.booleans(),
    ),
    orders=orders(),
    recounts=st.lists(
        st.builds(Recount, moments_ms, st.sampled_from(sorted(SKUS)), st.integers(0, 20)),
        max_size=1,
    ).map(tuple),
    faults=st.lists(fault(), max_size=5).map(tuple),
)


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("SCHEDULE_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(schedules)
def test_whatever_hypothesis_comes_up_with_every_invariant_holds(schedule: Schedule) -> None:
    assert run_schedule(schedule).findings == ()
