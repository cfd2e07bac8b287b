"""The commands against a real `orders run`: place, show, tree, stock, export."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.desk_types import order_id_for

Orders = Callable[..., Any]

pytestmark = pytest.mark.slow


def line(key: str, sku: str = "hat", quantity: int = 1, **more: Any) -> str:
    item = {"sku": sku, "quantity": quantity, "unit_price_minor": 255}
    body = {"customer_id": "c1", "currency": "GBP", "items": [item], "payment_token": "tok_ok"}
    return json.dumps({**body, "idempotency_key": key, **more}) + "\n"


def place(on: Orders, tmp_path: Path, *lines: str) -> Any:
    (tmp_path / "orders.jsonl").write_text("".join(lines))
    done = on("place", "orders.jsonl", "--json")
    assert done.code == 0
    return done.json


def wait_terminal(on: Orders, key: str) -> Any:
    deadline = time.monotonic() + 10
    while True:
        view = on("show", order_id_for(key), "--json").json
        if view["status"] not in ("pending", "reserved"):
            return view
        assert time.monotonic() < deadline, view
        time.sleep(0.02)


@pytest.fixture
def order_id(on: Orders, tmp_path: Path) -> str:
    """A confirmed order of two hats."""
    assert on("stock", "set", "hat=100000").code == 0
    place(on, tmp_path, line("two-hats", quantity=2))
    view = wait_terminal(on, "two-hats")
    assert view["status"] == "confirmed"
    return str(view["order_id"])


def test_stock_that_is_set_is_listed_for_people_and_for_machines(on: Orders) -> None:
    done = on("stock", "set", "85123A=7", "odd=name=0")
    assert (done.code, done.out, done.err) == (0, "", "2 stock items set\n")
    listed = on("stock", "list", "--json").json
    assert listed["85123A"] | {"on_hand": 7, "initial": 7} == listed["85123A"]
    assert "odd=name" in listed
    assert "85123A" in on("stock", "list").out


def test_what_the_instance_refuses_is_told_with_its_reason(on: Orders) -> None:
    done = on("stock", "set", f"hat={2**53}")
    assert (done.code, done.out) == (2, "")
    assert "hat: Input should be less than or equal to 9007199254740991" in done.err


def test_a_file_is_placed_and_its_bad_lines_are_counted_by_reason(
    on: Orders, tmp_path: Path
) -> None:
    lines = [line("a1"), line("a2"), line("a2", quantity=9), "{}\n", "nonsense\n"]
    assert place(on, tmp_path, *lines) == {
        "accepted": 2,
        "refused": {"Idempotency key reused": 1},
        "cancellations": {},
        "skipped": {"invalid order": 1, "not JSON": 1},
        "unanswered": {},
        "untried_from_line": None,
    }


def test_a_file_that_is_placed_again_places_nothing_new(on: Orders, tmp_path: Path) -> None:
    before = place(on, tmp_path, line("b1"), line("b2", idempotency_key="b3"))
    history = wait_terminal(on, "b1")["history"]
    assert place(on, tmp_path, line("b1"), line("b2", idempotency_key="b3")) == before
    assert wait_terminal(on, "b1")["history"] == history


def test_the_retail_export_comes_in_by_a_pipe_with_its_cancellations(
    instance: Any, tmp_path: Path
) -> None:
    rows = [
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        "536365,71053,LANTERN,6,2010-12-01 08:26:00,3.39,17850,United Kingdom",
        "C536379,71053,LANTERN,-1,2010-12-01 09:41:00,3.39,17850,United Kingdom",
        "536380,POST,POSTAGE,1,2010-12-01 09:42:00,18.00,17850,France",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "runtime", "place", "-"],
        input="\n".join(rows).encode(),
        capture_output=True,
        env={**os.environ, **instance.environ, "COLUMNS": "120"},
        cwd=tmp_path,
    )
    table = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")  # No progress bar where nobody looks.
    accepted, cancelled, skipped = table.splitlines()[3:6]
    assert "orders accepted" in accepted
    assert accepted.rstrip("│ ").endswith("1")
    assert "cancellations" in cancelled
    assert "line 3" in cancelled
    assert "not a product" in skipped
    assert "line 4" in skipped


def test_an_order_is_shown_as_a_person_reads_it(on: Orders, order_id: str) -> None:
    done = on("show", order_id)
    assert (done.code, done.err) == (0, "")
    for shown in (order_id, "confirmed", "5.10 GBP", "captured", "sold", "PaymentTaken"):
        assert shown in done.out


def test_an_order_that_nobody_placed_is_one_line(on: Orders) -> None:
    done = on("show", "nobodys")
    assert (done.code, done.out, done.err) == (1, "", "orders: there is no order nobodys\n")


def test_the_tree_shows_every_shard(on: Orders) -> None:
    shards = ["order.0", "order.1", "inventory.0", "inventory.1", "payment.0"]
    done = on("tree")
    assert (done.code, done.err) == (0, "")
    assert [shard for shard in shards if f"{shard}  running" not in done.out] == []
    assert on("tree", "--json").json["children"]


def test_a_proxy_for_the_world_outside_is_not_asked(on: Orders) -> None:
    assert on("tree", HTTP_PROXY="http://127.0.0.1:1").code == 0


def test_without_the_instance_the_same_order_is_read_from_its_broker(
    on: Orders, order_id: str
) -> None:
    """Nobody listens at this address, but the store is in use: its server is asked."""
    nobody = {"HTTP_BIND": "127.0.0.1:1"}
    done = on("show", order_id, "--json", **nobody)
    assert done.code == 0
    assert done.err == "no instance is running; reading from the broker alone\n"
    assert done.json == on("show", order_id, "--json").json
    gone = on("show", "nobodys", **nobody)
    assert gone.code == 1
    assert "there is no order nobodys" in gone.err


def test_what_is_exported_is_what_the_instance_shows(on: Orders, order_id: str) -> None:
    events = [event for event in on("export", "events").lines if event["order_id"] == order_id]
    said = [event["type"] for event in events]
    assert said == [
        "OrderOpened",
        "StockReserved",
        "OrderReserved",
        "PaymentTaken",
        "OrderConfirmed",
    ]
    orders = {view["order_id"]: view for view in on("export", "orders").lines}
    assert orders[order_id] == on("show", order_id, "--json").json
    stock = {level.pop("sku"): level for level in on("export", "stock").lines}
    assert stock.keys() == on("stock", "list", "--json").json.keys()
    assert on("export", "dead-letters").out == ""


def test_a_reader_that_has_seen_enough_is_no_failure(
    instance: Any, order_id: str, tmp_path: Path
) -> None:
    export = subprocess.Popen(
        [sys.executable, "-m", "runtime", "export", "events"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **instance.environ},
        cwd=tmp_path,
    )
    assert export.stdout is not None
    export.stdout.close()  # As `head` does, only sooner.
    _, err = export.communicate(timeout=30)
    assert (export.returncode, err) == (0, b"")


def test_other_shard_counts_than_the_streams_were_made_with_are_refused(on: Orders) -> None:
    done = on("export", "orders", ORDER_SHARDS="3")
    assert (done.code, done.out) == (78, "")
    assert "2 shards of order, not 3" in done.err


def test_the_streams_are_described_as_they_are(on: Orders, instance: Any) -> None:
    """By the broker's own list, asked for in its plain protocol."""
    port = (Path(instance.environ["NATS_STORE_DIR"]) / "port").read_text().strip()
    listed = _jetstream(int(port), "STREAM.LIST")["streams"]
    there = {stream["config"]["name"]: stream["config"]["subjects"] for stream in listed}
    described = on("describe").json["streams"]
    assert {stream["name"]: stream["subjects"] for stream in described} == there


def test_something_else_that_listens_there_is_told_from_an_instance(
    orders: Orders, own_nats_server: Any
) -> None:
    done = orders("tree", ADMIN_BIND=f"127.0.0.1:{own_nats_server.port}")
    assert (done.code, done.out) == (1, "")
    assert "gives no answer" in done.err


def _jetstream(port: int, operation: str) -> Any:
    with socket.create_connection(("127.0.0.1", port)) as nats, nats.makefile("rb") as answers:
        asked = f'CONNECT {{"verbose":false}}\r\nSUB i 1\r\nPUB $JS.API.{operation} i 0\r\n\r\n'
        nats.sendall(asked.encode())
        while not (head := answers.readline()).startswith(b"MSG"):
            assert head
        return json.loads(answers.read(int(head.split()[-1])))
