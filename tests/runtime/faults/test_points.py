"""Every point is reached by orders on their way, and no order is lost to what happens there."""

from typing import Any

import pytest

from runtime.faults import POINTS, Action, Faults
from runtime.faults.points import WIRE_MESSAGE
from runtime.testing import Stage

HTTP = sorted(name for name in POINTS if name.startswith("http."))
ON_THE_WAY = sorted(POINTS.keys() - {*HTTP, WIRE_MESSAGE.name})  # The wire: test_wire.py.


@pytest.mark.parametrize("point", ON_THE_WAY)
async def test_every_point_is_reached_by_an_order_on_its_way(
    stage: Stage, faults: Faults, shop: Any, autojump_clock: Any, point: str
) -> None:
    faults.inject(point, "delay", times=1000, duration_s=0.01)
    await shop.live("o1")
    assert faults.fired[point, "delay"]


async def test_a_record_that_says_nothing_can_be_selected_by_the_order_that_it_is_about(
    stage: Stage, faults: Faults, shop: Any, autojump_clock: Any
) -> None:
    # Payment stores that it will charge, and has nothing to say before it has done so.
    said = faults.inject("shard.before-append", "delay", actor="payment", fact="PaymentTaken")
    selected = faults.inject("shard.before-append", "delay", actor="payment", order="o1", times=99)
    await shop.confirm("o1")
    assert selected.standing.fired > said.standing.fired == 1


SURVIVED = [
    (point.name, action.value)
    for point in POINTS.values()
    if point.name in ON_THE_WAY
    for action in (Action.RAISE, Action.CRASH, Action.DROP, Action.DUPLICATE, Action.EXIT)
    if action in point.actions
]


@pytest.mark.parametrize(("point", "action"), SURVIVED)
async def test_an_order_survives_every_failure_at_every_point_and_again_at_the_next(
    stage: Stage, faults: Faults, shop: Any, autojump_clock: Any, point: str, action: str
) -> None:
    armed = faults.inject(point, action, times=2)
    await shop.live("o1")
    assert armed.standing.fired
