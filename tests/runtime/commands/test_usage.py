"""What every command says where nothing runs: help, wrong usage, a faulty configuration, nobody there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Orders = Callable[..., Any]

COMMANDS = [
    "run",
    "place",
    "show",
    "tree",
    "stock",
    "stock set",
    "stock list",
    "export",
    "export events",
    "export orders",
    "export stock",
    "export dead-letters",
    "describe",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(orders: Orders, command: str) -> None:
    done = orders(*command.split(), "--help")
    assert done.code == 0
    assert f"Usage: orders {command}" in done.out
    assert done.out.count(".") > 0


@pytest.mark.parametrize(
    ("command", "faults"),
    [
        ("sell", ["No such command"]),
        ("place", ["give a FILE, or --excerpt"]),
        ("place orders.jsonl --excerpt", ["give a FILE, or --excerpt"]),
        ("place nowhere.jsonl", ["nowhere.jsonl", "No such file"]),
        ("place notes.txt", ["notes.txt", "neither JSON lines", "nor the retail export"]),
        ("place --excerpt --concurrency 0", ["--concurrency", "greater than or equal to 1"]),
        ("show", ["ORDER_ID"]),
        ("show a/b", ["a/b", "is no order id"]),
        ("tree --watch --json", ["not both"]),
        ("stock set", ["give SKU=N"]),
        ("stock set a=1 --excerpt", ["give SKU=N"]),
        (
            "stock set a b=x c=1 c=2",
            ["'a' is not SKU=N", "'b=x' is not SKU=N", "c is given 2 times"],
        ),
        ("stock set =1 é=1", ["'=1' is not SKU=N"]),
        ("export nothing", ["nothing"]),
    ],
)
def test_wrong_usage_exits_with_2_and_says_all_that_is_wrong(
    orders: Orders, tmp_path: Path, command: str, faults: list[str]
) -> None:
    (tmp_path / "orders.jsonl").write_text("{}\n")
    (tmp_path / "notes.txt").write_text("milk, bread\n")
    done = orders(*command.split())
    assert (done.code, done.out) == (2, "")
    assert [fault for fault in faults if fault.lower() not in done.err.lower()] == []


@pytest.mark.parametrize(
    "command", ["show o1", "tree", "stock set a=1", "stock list", "export stock", "describe"]
)
def test_a_faulty_configuration_exits_with_78_and_every_fault(orders: Orders, command: str) -> None:
    done = orders(*command.split(), HTTP_BIND="here", NATS_URL="http://there")
    assert (done.code, done.out) == (78, "")
    assert "HTTP_BIND is 'here'" in done.err
    assert "NATS_URL is 'http://there'" in done.err


@pytest.mark.parametrize("command", ["place --excerpt", "tree", "stock set a=1", "stock list"])
def test_where_no_instance_runs_one_line_says_so(orders: Orders, command: str) -> None:
    done = orders(*command.split())
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("orders: no instance is running at http://127.0.0.1:")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "command", ["show o1", "export events", "export orders", "export stock", "export dead-letters"]
)
def test_a_place_where_nobody_ever_ordered_is_told_about_and_left_as_it_is(
    orders: Orders, tmp_path: Path, command: str
) -> None:
    done = orders(*command.split())
    assert (done.code, done.out) == (1, "")
    assert f"there are no orders in {tmp_path / 'store'}" in done.err
    assert not (tmp_path / "store").exists()


def test_a_broker_that_is_not_there_is_told_about(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.reading.CONNECT_S", 0.1)
    done = orders("export", "events", NATS_URL="nats://127.0.0.1:1")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "orders: no broker answers at nats://127.0.0.1:1: start it, or check NATS_URL\n"
    )


def test_a_broker_without_our_stream_is_told_about_and_given_none(
    orders: Orders, own_nats_server: Any
) -> None:
    for _ in range(2):
        done = orders("export", "events", NATS_URL=own_nats_server.url)
        assert (done.code, done.out) == (1, "")
        assert "it has no stream ORDERS" in done.err


def test_the_description_is_json_and_needs_no_broker(orders: Orders) -> None:
    done = orders("describe")
    assert (done.code, done.err) == (0, "")
    described = done.json
    by_name = {message["name"]: message for message in described["messages"]}
    created = by_name["orders.v1.OrderCreated"]
    assert {"number": 6, "name": "total_minor", "type": "int64", "repeated": False} in created[
        "fields"
    ]
    assert created["heard_by"] == ["order"]
    assert by_name["orders.v1.OrderConfirmed"]["heard_by"] == ["inventory", "payment"]
    assert [(actor["name"], actor["shards"]) for actor in described["actors"]] == [
        ("order", 2),
        ("inventory", 2),
        ("payment", 1),
    ]
    assert {"NATS_URL", "RETENTION"} <= {variable["name"] for variable in described["variables"]}
