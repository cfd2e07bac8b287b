"""What people are shown: amounts, an order, the tree, the result of placing; and how they give stock."""

from typing import Any

import pytest
from rich.console import Console, RenderableType

from runtime.commands import place, show, tree
from runtime.commands.client import url_of
from runtime.commands.money import in_major_units
from runtime.commands.placing import Tally
from runtime.commands.stock import LevelError, parse_levels
from runtime.config_parsers import address

ORDER: dict[str, Any] = {
    "order_id": "o1",
    "status": "cancelled",
    "reason": "cancel_asked",
    "customer_id": "[bold]c1[/bold]",
    "items": [{"sku": "[red]hat", "quantity": 3, "unit_price_minor": 1005}],
    "total": {"minor": 3015, "currency": "JPY"},
    "payment": {"status": "refunded", "charge_id": "ch_1", "refund_id": "re_1"},
    "reservation": {"status": "released", "expires_at": "2026-01-01T00:00:00.000+00:00"},
    "history": [
        {"at": "2026-01-01T00:00:00.000+00:00", "event": "OrderCreated", "status": "pending"}
    ],
    "trace_id": None,
}

WORKER: dict[str, Any] = {
    "id": "order.0",
    "kind": "worker",
    "state": "running",
    "since_s": 3.25,
    "restarts": 0,
    "restarts_in_window": 0,
    "intensity": 10,
}
BUSY = {"mailbox_lag": 12, "calls_in_flight": 3, "last_progress_s": 0.2, "stalled": False}


def printed(shown: RenderableType) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [
        (1530, "GBP", "15.30 GBP"),
        (5, "EUR", "0.05 EUR"),
        (0, "USD", "0.00 USD"),
        (1530, "JPY", "1,530 JPY"),
        (1530, "KWD", "1.530 KWD"),
        (-205, "GBP", "-2.05 GBP"),
        (2**63 - 1, "GBP", "92,233,720,368,547,758.07 GBP"),
    ],
)
def test_an_amount_is_shown_exactly_in_its_currencys_own_units(
    minor: int, currency: str, shown: str
) -> None:
    assert in_major_units(minor, currency) == shown


def test_an_order_is_shown_whole_and_its_words_are_never_markup() -> None:
    shown = printed(show.render(ORDER))
    wanted = ("cancel_asked", "[bold]c1[/bold]", "[red]hat", "1,005 JPY", "3,015 JPY")
    assert [
        words for words in (*wanted, "refunded, ch_1, re_1", "none") if words not in shown
    ] == []


def test_an_order_that_no_shard_has_taken_up_shows_its_status() -> None:
    shown = printed(show.render({"order_id": "o1", "status": "pending", "version": 0}))
    assert "pending" in shown
    assert "Items" not in shown


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({}, "order.0  running  for 3.2 s"),
        ({"since_s": 3725.0}, "order.0  running  for 1 h 02 min"),
        ({"since_s": 65.0, "strategy": "one_for_one"}, "for 1 min 05 s  one_for_one"),
        ({"state": "restarting", "backing_off_s": 0.4}, "order.0  backing off 0.4 s"),
        ({"restarts": 5, "restarts_in_window": 2}, "restarts 5 (2/10 in window)"),
        ({"children_restarts_in_window": 4, "children_intensity": 10}, "restarts below 4/10"),
        (BUSY, "mailbox 12  calls 3  progress 0.2 s ago"),
        ({**BUSY, "mailbox_lag": 0, "calls_in_flight": 0}, "for 3.2 s  progress 0.2 s ago"),
        ({**BUSY, "last_progress_s": 7.15, "stalled": True}, "no progress for 7.2 s"),
        ({"last_error": "ValueError: [red]\nboom"}, "last: ValueError: [red] boom"),
    ],
)
def test_a_child_is_one_line_with_all_that_is_known_of_it(
    changed: dict[str, Any], shown: str
) -> None:
    (line,) = printed(tree.render({**WORKER, **changed})).splitlines()
    assert shown in line


def test_children_stand_below_their_supervisor() -> None:
    supervisor = WORKER | {"id": "order", "kind": "supervisor", "children": [WORKER]}
    first, second = printed(tree.render(supervisor)).splitlines()
    assert first.startswith("order  running")
    assert second.startswith("└── order.0  running")


def test_the_result_names_each_reason_with_its_first_line() -> None:
    tally = Tally(accepted=1200, untried_from_line=90)
    tally.count(tally.skipped, "not JSON", 4, "[red]expecting value")
    tally.count(tally.skipped, "not JSON", 5, "something else")
    tally.count(tally.unanswered, "ConnectError", 80)
    shown = printed(place.render(tally))
    for words in ("1,200", "line 4: [red]expecting value", "line 80", "from line 90 on"):
        assert words in shown
    assert "something else" not in shown
    assert not tally.is_complete


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        (["a=1"], {"a": 1}),
        (["a=1", "b=0", "a=b=2"], {"a": 1, "b": 0, "a=b": 2}),
        (["a=007"], {"a": 7}),
    ],
)
def test_stock_is_given_as_sku_and_number(given: list[str], levels: dict[str, int]) -> None:
    assert parse_levels(given) == levels


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        (["a"], ["'a' is not SKU=N"]),
        (["=1"], ["'=1' is not SKU=N"]),
        (["a="], ["'a=' is not SKU=N"]),
        (["a=-1", "b=1.5", "c=٣"], ["'a=-1'", "'b=1.5'", "is not SKU=N"]),
        (["a=" + "9" * 5000], ["is not SKU=N"]),
        (["a=1", "a=1"], ["a is given 2 times"]),
        (["a b=1", "é=1", "c=9007199254740992"], ["a b: ", "xe9: ", "c: "]),
    ],
)
def test_what_is_no_stock_is_refused_with_every_fault(given: list[str], faults: list[str]) -> None:
    with pytest.raises(LevelError) as refused:
        parse_levels(given)
    assert [fault for fault in faults if fault not in str(refused.value)] == []


def test_an_instance_that_listens_everywhere_is_asked_here() -> None:
    assert url_of(address("0.0.0.0:8080")) == "http://127.0.0.1:8080"
    assert url_of(address("[::]:8080")) == "http://[::1]:8080"
    assert url_of(address("orders.internal:80")) == "http://orders.internal:80"
