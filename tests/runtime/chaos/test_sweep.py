"""The sweep kills where it says it does, and what it holds orders against would notice."""

from pathlib import Path
from typing import Any

import pytest

from runtime.chaos.conversation import Part, Said, Toward
from runtime.chaos.proxy import CUT_BEFORE, DROP, FORWARD, Passing
from runtime.chaos.sweep import Point, Side, Trap, run_sweep
from runtime.chaos.sweep_ground import STOCK
from runtime.chaos.sweep_orders import SCENARIOS, Books
from runtime.simulator_ledger import Line

CONFIRMED, DECLINED = SCENARIOS[0], SCENARIOS[1]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_an_order_survives_a_kill_at_points_drawn_at_random(tmp_path: Path) -> None:
    undone = SCENARIOS[2:]  # Those with something to give back.
    report = await run_sweep(tmp_path, scenarios=undone, points_max=3, pairs=1, seed=7)
    assert report.findings == []
    assert report.covered == 3 * len(undone)
    assert report.pairs == report.audits == len(undone)
    assert report.kills >= 5 * len(undone)
    frames = report.coverage["cancelled"].frames
    assert any("POST /refunds" in frame for frame in frames), "money had to be given back"


def passing(about: str) -> Passing:
    return Passing(Said(b"", Part.PUBLISH, about), Toward.SERVER, 0)


def test_a_trap_kills_before_a_frame_at_once_and_the_dead_say_nothing_more() -> None:
    killed: list[str] = []
    trap = Trap(lambda: killed.append("now"), [Point(1, Side.BEFORE)])
    assert trap(passing("a")) is FORWARD
    assert not killed
    assert trap(passing("b")) is CUT_BEFORE
    assert killed
    assert trap(passing("c")) is DROP


def test_a_trap_kills_after_a_frame_once_that_is_written() -> None:
    killed: list[str] = []
    trap = Trap(lambda: killed.append("now"), [Point(0, Side.AFTER)])
    fate = trap(passing("a"))
    assert (fate.copies, killed) == (1, [])
    assert fate.then is not None
    fate.then()
    assert killed


def test_a_second_point_counts_from_the_restart() -> None:
    killed: list[str] = []
    trap = Trap(lambda: killed.append("now"), [Point(1, Side.BEFORE), Point(0, Side.BEFORE)])
    for about in "ab":
        trap(passing(about))
    trap.reset()
    assert trap(passing("c")) is CUT_BEFORE
    assert len(killed) == len(trap.fired) == 2


def view(status: str, **more: Any) -> dict[str, Any]:
    history = [{"status": "pending"}, {"status": status}]
    return {"order_id": "o1", "status": status, "history": history, **more}


def line(kind: str, amount_minor: int = CONFIRMED.total_minor, key: str = "k") -> Line:
    return Line(key, kind, "o1", amount_minor, "GBP", key, "ch", 0)  # type: ignore[arg-type]


def levels(sold: dict[str, int], reserved: int = 0) -> dict[str, dict[str, int]]:
    return {
        sku: {
            "initial": count,
            "on_hand": count - sold.get(sku, 0),
            "reserved": reserved,
            "available": count - sold.get(sku, 0) - reserved,
            "sold": sold.get(sku, 0),
        }
        for sku, count in STOCK.items()
    }


SOLD = dict(CONFIRMED.items)
PAID = [line("capture")]


def test_the_books_close_on_what_is_right() -> None:
    books = Books()
    assert not [*books.close(CONFIRMED, [view("confirmed")], PAID, levels(SOLD))]
    given_back = [*PAID, line("refund", key="r")]
    assert not [*books.close(SCENARIOS[2], [view("cancelled")] * 2, given_back, levels(SOLD))]


@pytest.mark.parametrize(
    ("answers", "ledger", "stock", "said"),
    [
        ([view("rejected")], [], levels({}), "it ended rejected"),
        ([view("pending")], [], levels({}), "not one end"),
        ([view("confirmed", order_id="o2"), view("confirmed")], PAID, levels(SOLD), "order_id"),
        ([view("confirmed", history=[]), view("confirmed")], PAID, levels(SOLD), "history"),
        ([view("confirmed")], [], levels(SOLD), "0 was taken"),
        ([view("confirmed")], [*PAID, line("refund", key="r")], levels(SOLD), "0 was taken"),
        ([view("confirmed")], [*PAID, line("capture", key="l")], levels(SOLD), "charged 2 times"),
        ([view("confirmed")], PAID, levels({}), "stock of hat"),
        ([view("confirmed")], PAID, levels(SOLD, reserved=1), "stock of rare"),
    ],
)
def test_the_books_do_not_close_on_what_is_wrong(
    answers: list[dict[str, Any]], ledger: list[Line], stock: dict[str, dict[str, int]], said: str
) -> None:
    assert said in "; ".join(Books().close(CONFIRMED, answers, ledger, stock))
