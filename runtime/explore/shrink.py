"""Make a failing schedule small: leave out, in ever finer pieces, what it does not need to fail."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from runtime.explore.schedule import Conditions, Damage, Order, Schedule, Way

RUNS_MAX: Final = 600  # Half a minute; what is small by then is small enough.

T = TypeVar("T")

PLAIN: Final = "tok_ok"

Fails = Callable[[Schedule], bool]


def shrink(schedule: Schedule, fails: Fails, *, runs_max: int = RUNS_MAX) -> Schedule:
    """The smallest schedule found that still fails. The one given has to."""
    runs = 0
    smaller_found = True
    while smaller_found:
        smaller_found = False
        for smaller in _smaller(schedule):
            runs += 1
            if runs > runs_max:
                return schedule
            if fails(smaller):
                schedule, smaller_found = smaller, True
                break
    return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Schedules with a little less in them, those first that leave out most."""
    for faults in _fewer(schedule.faults):
        yield replace(schedule, faults=faults)
    for orders in _fewer(schedule.orders):
        yield replace(schedule, orders=orders)
    for recounts in _fewer(schedule.recounts):
        yield replace(schedule, recounts=recounts)
    for plainer in _plainer_conditions(schedule.conditions):
        yield replace(schedule, conditions=plainer)
    for at, fault in enumerate(schedule.faults):
        for sooner in dict.fromkeys((1, fault.at // 2, fault.at - 1)):
            if 0 < sooner < fault.at:
                yield replace(
                    schedule, faults=_with(schedule.faults, at, replace(fault, at=sooner))
                )
    for at, order in enumerate(schedule.orders):
        for plainer_order in _plainer_orders(order):
            yield replace(schedule, orders=_with(schedule.orders, at, plainer_order))


def _with(items: Sequence[T], at: int, item: T) -> tuple[T, ...]:
    return (*items[:at], item, *items[at + 1 :])


def _fewer(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Without a half, a quarter, ... a single one, wherever it stands."""
    size = len(items)
    while size:
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
        size //= 2


def _plainer_conditions(conditions: Conditions) -> Iterator[Conditions]:
    usual = Conditions()
    for name in ("latency_ms", "payment_deadline_ms", "reservation_ttl_ms"):
        if getattr(conditions, name) != getattr(usual, name):
            yield replace(conditions, **{name: getattr(usual, name)})
    if conditions.shards != (1, 1, 1):
        yield replace(conditions, shards=(1, 1, 1))
    if conditions.narrow:
        yield replace(conditions, narrow=False)


def _plainer_orders(order: Order) -> Iterator[Order]:
    if order.again_ms:
        yield replace(order, again_ms=order.again_ms[1:])
    if order.clash_ms is not None:
        yield replace(order, clash_ms=None)
    if order.cancel_ms is not None:
        yield replace(order, cancel_ms=None)
    if len(order.lines) > 1:
        yield replace(order, lines=order.lines[:1])
    if order.damage:
        yield replace(order, damage=Damage.NONE)
    elif order.way is Way.OPEN:
        yield replace(order, way=Way.ASK)
    if order.token != PLAIN:
        yield replace(order, token=PLAIN)
    if order.at_ms:
        yield replace(order, at_ms=0)
