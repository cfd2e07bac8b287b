"""The demo: that its checks can fail, that its customers never give up, and one run of the whole."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from runtime.demo_checks import (
    Case,
    find_double_charged,
    find_lost,
    find_mischarged,
    find_stock_faults,
    join,
)
from runtime.demo_load import PATIENCE_S, Level, Placed, Seen, _Asking, _Customer
from runtime.demo_plan import Cancel, Placing, Plan, make_plan
from runtime.demo_verdict import Evidence, judge, percentile_ms
from runtime.simulator_ledger import Line

# --- one order of two hats at 1.50, and what may have become of it ---

PLACING = Placing(
    "key",
    {"currency": "GBP", "items": [{"sku": "hat", "quantity": 2, "unit_price_minor": 150}]},
)
OPENING = {"hat": 5}


def placed(
    order_id: str = "o1", began_s: float = 10.0, took_ms: float = 5.0, **more: Any
) -> Placed:
    return Placed("key", order_id, began_s, took_ms, more.pop("busy", 0), 0, **more)


def case(status: str) -> Case:
    return Case(PLACING, placed(), status, "")


def moved(kind: str, minor: int = 300, reference: str = "o1", currency: str = "GBP") -> Line:
    return Line("id", kind, reference, minor, currency, "key", "ch", 0)  # type: ignore[arg-type]


def level(available: int, sold: int, reserved: int = 0) -> Level:
    return Level(available + reserved + sold, available + reserved, reserved, available, sold)


CAPTURE, REFUND = moved("capture"), moved("refund")


# --- the checks ---


@pytest.mark.parametrize("status", ["", "pending", "reserved"])
def test_an_accepted_order_that_is_unknown_or_undecided_is_lost(status: str) -> None:
    assert find_lost([case(status)]) == {"o1"}


@pytest.mark.parametrize("status", ["confirmed", "rejected", "cancelled", "needs_attention"])
def test_an_order_that_was_decided_or_parked_is_not_lost(status: str) -> None:
    assert not find_lost([case(status)])


def test_an_order_that_nobody_has_seen_again_is_lost() -> None:
    assert find_lost(join([PLACING], [placed()], [Seen("another", "confirmed", "")])) == {"o1"}


def test_what_was_never_accepted_cannot_be_lost() -> None:
    assert join([PLACING], [placed(order_id="")], []) == []


@pytest.mark.parametrize(
    ("ledger", "found"),
    [
        ([CAPTURE], set()),
        ([CAPTURE, CAPTURE], {"o1"}),
        ([CAPTURE, CAPTURE, REFUND], {"o1"}),
        ([moved("capture", 301)], {"o1"}),
        ([moved("capture", reference="stranger")], {"stranger"}),
        ([moved("capture", reference="stranger"), moved("refund", reference="stranger")], set()),
    ],
    ids=["once", "twice", "twice, one given back", "too much", "nobody's", "nobody's, given back"],
)
def test_two_charges_or_too_large_a_one_are_found(ledger: list[Line], found: set[str]) -> None:
    assert find_double_charged([case("confirmed")], ledger) == found


@pytest.mark.parametrize(
    ("status", "ledger", "is_right"),
    [
        ("confirmed", [CAPTURE], True),
        ("confirmed", [], False),
        ("confirmed", [moved("capture", 299)], False),
        ("confirmed", [moved("capture", currency="EUR")], False),
        ("confirmed", [CAPTURE, REFUND], False),
        ("cancelled", [CAPTURE, REFUND], True),
        ("cancelled", [CAPTURE], False),
        ("cancelled", [CAPTURE, moved("refund", 299)], False),
        ("rejected", [], True),
        ("rejected", [CAPTURE], False),
        ("needs_attention", [CAPTURE], True),
    ],
)
def test_money_fits_what_became_of_the_order(
    status: str, ledger: list[Line], is_right: bool
) -> None:
    assert (not find_mischarged([case(status)], ledger)) is is_right


def test_an_order_is_paid_for_in_its_own_currency() -> None:
    placing = Placing("key", {**PLACING.body, "currency": "EUR"})
    in_euro = Case(placing, placed(), "confirmed", "")
    assert not find_mischarged([in_euro], [moved("capture", currency="EUR")])
    assert find_mischarged([in_euro], [CAPTURE]) == {"o1"}


@pytest.mark.parametrize(
    ("status", "stock", "fault"),
    [
        ("confirmed", {"hat": level(3, 2)}, ""),
        ("cancelled", {"hat": level(5, 0)}, ""),
        ("needs_attention", {"hat": level(3, 0, 2)}, ""),
        ("confirmed", {"hat": level(4, 1)}, "1 sold, but confirmed orders hold 2"),
        ("rejected", {"hat": level(3, 2)}, "2 sold, but confirmed orders hold 0"),
        ("confirmed", {"hat": level(2, 2)}, "stocked with 5"),
        ("confirmed", {"hat": level(1, 2, 2)}, "2 reserved, but undecided orders hold 0"),
        ("confirmed", {"hat": level(-1, 6)}, "negative"),
        ("confirmed", {}, "gone"),
        ("confirmed", {"hat": level(3, 2), "cap": level(0, 0)}, "cap: never stocked"),
    ],
)
def test_every_unit_is_accounted_for(status: str, stock: dict[str, Level], fault: str) -> None:
    faults = find_stock_faults([case(status)], OPENING, stock)
    assert [fault in one for one in faults] == ([True] if fault else [])


# --- the verdict ---


def evidence(**changes: Any) -> Evidence:
    good: dict[str, Any] = {
        "plan": Plan([PLACING], OPENING, {}),
        "journal": [placed()],
        "seen": [Seen("o1", "confirmed", "")],
        "stock": {"hat": level(3, 2)},
        "ledger": [CAPTURE],
    }
    return Evidence(**good | changes)


def test_what_is_all_right_is_good() -> None:
    verdict = judge(evidence())
    assert verdict.is_good
    assert (verdict.charged_minor, verdict.confirmed_minor) == (300, 300)


UNSOLD: dict[str, Any] = {"stock": {"hat": level(5, 0)}, "ledger": []}


@pytest.mark.parametrize(
    ("wrong", "figure"),
    [
        (UNSOLD | {"seen": []}, "lost"),
        (UNSOLD | {"journal": [placed(order_id="")]}, "unplaced"),
        ({"ledger": [CAPTURE, CAPTURE, REFUND]}, "double_charged"),
        ({"ledger": []}, "mischarged"),
        ({"stock": {}}, "stock_faults"),
    ],
)
def test_one_thing_wrong_is_enough_to_fail(wrong: dict[str, Any], figure: str) -> None:
    verdict = judge(evidence(**wrong))
    assert not verdict.is_good
    assert getattr(verdict, figure)


def test_rejections_are_told_by_reason_and_not_by_product() -> None:
    verdict = judge(evidence(seen=[Seen("o1", "rejected", "out_of_stock: hat")]))
    assert verdict.rejected_by_reason == {"out_of_stock": 1}
    verdict = judge(evidence(seen=[Seen("o1", "rejected", "payment_refused: card_declined")]))
    assert verdict.rejected_by_reason == {"payment_refused: card_declined": 1}


def test_a_percentile_is_a_time_that_an_order_really_took() -> None:
    hundred = [placed(took_ms=ms) for ms in range(100, 0, -1)]
    assert (percentile_ms(hundred, 50), percentile_ms(hundred, 99)) == (50, 99)
    assert percentile_ms(hundred[-10:], 99) == 10
    assert percentile_ms([placed(took_ms=7)], 99) == 7
    assert percentile_ms([], 50) == 0


@pytest.mark.parametrize(
    ("disturbed_s", "p50_ms"),
    [((1.0, 9.0), 5000.0), ((1.0, 11.0), 0.0), ((14.0, 20.0), 0.0), ((16.0, 20.0), 5000.0)],
)
def test_orders_that_met_a_fault_are_not_counted_as_undisturbed(
    disturbed_s: tuple[float, float], p50_ms: float
) -> None:
    verdict = judge(evidence(journal=[placed(took_ms=5000.0)], disturbed_s=disturbed_s))
    assert verdict.undisturbed_p50_ms == p50_ms
    assert verdict.p50_ms == 5000


# --- the plan ---


def test_the_plan_holds_two_thousand_orders_their_cancels_and_what_was_skipped() -> None:
    plan = make_plan(10_000)
    why = [placing.cancel for placing in plan.placings]
    assert len(plan.placings) >= 2_000
    assert len({placing.key for placing in plan.placings}) == len(plan.placings)
    assert why.count(Cancel.RETURNED) == 4
    assert 20 < why.count(Cancel.MIND_CHANGED) < 80
    assert sum(plan.skipped.values()) > 2_000


def test_a_shorter_plan_stocks_what_its_own_orders_need() -> None:
    plan = make_plan(3)
    assert len(plan.placings) == 3
    assert plan.opening.keys() == {sku for placing in plan.placings for sku in placing.units}


# --- the customers ---


async def answered_by(*answers: httpx.Response | Exception) -> tuple[Placed, list[httpx.Request]]:
    """What a customer hears who gets these answers, one after the other, and what they sent."""
    waiting, requests = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        heard = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(heard, Exception):
            raise heard
        return heard

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        return await _Customer(client, "http://shop", PLACING).place(), requests


def answer_of(code: int, status: str = "") -> httpx.Response:
    return httpx.Response(code, json={"order_id": "o1", "status": status})


async def test_a_customer_asks_again_with_the_same_key_until_the_order_is_decided(
    autojump_clock: object,
) -> None:
    told, requests = await answered_by(
        answer_of(503),
        httpx.ConnectError("refused"),
        answer_of(202, "pending"),
        answer_of(201, "confirmed"),
    )
    assert (told.order_id, told.busy, told.unanswered, told.trouble) == ("o1", 1, 1, "")
    assert [request.headers["idempotency-key"] for request in requests] == ["key"] * 4


async def test_a_customer_waits_as_long_as_the_server_says(autojump_clock: object) -> None:
    told, _ = await answered_by(
        httpx.Response(503, headers={"Retry-After": "2"}), answer_of(201, "confirmed")
    )
    assert told.took_ms == pytest.approx(2000)


async def test_a_customer_who_never_gets_an_answer_says_so_in_the_end(
    autojump_clock: object,
) -> None:
    started_s = trio.current_time()
    told, _ = await answered_by(httpx.ConnectError("refused"))
    assert told.order_id == ""
    assert "refused" in told.trouble
    assert trio.current_time() - started_s < PATIENCE_S + 5


async def test_an_order_that_stays_undecided_is_accepted_all_the_same(
    autojump_clock: object,
) -> None:
    async def slowly(_: httpx.Request) -> httpx.Response:
        await trio.sleep(5)
        return answer_of(202, "pending")

    async with httpx.AsyncClient(transport=httpx.MockTransport(slowly)) as client:
        told = await _Customer(client, "http://shop", PLACING).place()
    assert told.order_id == "o1"
    assert told.trouble


async def test_what_is_refused_for_good_is_not_asked_again(autojump_clock: object) -> None:
    told, requests = await answered_by(answer_of(422))
    assert (told.order_id, len(requests)) == ("", 1)
    assert "422" in told.trouble


async def test_patience_is_shared_by_all_questions_about_one_order(autojump_clock: object) -> None:
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: httpx.Response(503))
    ) as client:
        asking = _Asking(client)
        await trio.sleep(PATIENCE_S)
        with pytest.raises(TimeoutError):
            await asking.ask("GET", "http://shop")
        assert asking.busy == 0


# --- the whole ---


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_small_demo_loses_nothing_and_tidies_up(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "runtime", "demo", "--orders", "120", "--json"],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        timeout=110,
    )
    said = ended.stderr.decode()
    assert ended.returncode == 0, said
    figures = json.loads(ended.stdout)
    wanted = {
        "good": True,
        "placed": 120,
        "needs_attention": 0,
        "lost": 0,
        "double_charged": 0,
        "mischarged": 0,
        "stock_conserved": True,
    }
    assert {name: figures[name] for name in wanted} == wanted
    assert figures["confirmed"] + figures["rejected"] + figures["cancelled"] == 120
    assert figures["charged_minor"] == figures["confirmed_minor"] > 0
    # Every shard of every actor, the server, and what stood on it.
    assert figures["restarts"] >= 7
    assert {"order.0", "inventory.1", "payment.0", "nats-server"} <= {*figures["restarts_by_child"]}
    assert figures["orders_per_s"] > 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert "ready again after" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_demo_is_not_kept_where_something_is_already(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    ended = subprocess.run(
        [sys.executable, "-m", "runtime", "demo", "--keep", str(tmp_path)], capture_output=True
    )
    assert ended.returncode == 2
    assert "neither new nor empty" in ended.stderr.decode()
