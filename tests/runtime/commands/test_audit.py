"""`orders audit` as a user runs it: beside a running instance, on what it has left, and on what was made wrong."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from rich.console import Console

from runtime import embedded
from runtime.audit import Attempt, Finding, Op, Report, Result, Told, Verdict
from runtime.audit.journal import encode_attempts
from runtime.commands.audit import show
from runtime.ports import free_port
from runtime.simulator_ledger import Line

pytestmark = pytest.mark.slow

STARTED_S = 30


class Shop:
    """An `orders run` that a test may stop, and what it leaves behind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "instance.log"
        self.traces = directory / "spans.jsonl"
        http, admin = free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{admin}"
        self.environ = {
            "APP_ENV": "test",
            "LOG_FORMAT": "json",
            "NATS_STORE_DIR": str(directory / "store"),
            "HTTP_BIND": f"127.0.0.1:{http}",
            "ADMIN_BIND": f"127.0.0.1:{admin}",
            "ORDER_SHARDS": "2",
            "INVENTORY_SHARDS": "2",
            "PAYMENT_SHARDS": "1",
        }
        self.journal: list[Attempt] = []
        self.start()

    def start(self) -> None:
        traced = {"OTEL_TRACES_EXPORTER": "console", "ORDERS_TRACE_FILE": str(self.traces)}
        launcher = [sys.executable, "-I", "-S", "-c", embedded._DIE_WITH_PARENT, str(os.getpid())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*launcher, sys.executable, "-m", "runtime"],
                env={**os.environ, **self.environ, **traced},
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + STARTED_S
        while not self._is_ready():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def trade(self, count: int) -> None:
        """Put hats on the shelf, sell some, and read each order; all is written down."""
        levels = httpx.put(f"{self.admin}/stock", json={"hat": 100}, trust_env=False)
        self._note(Op.STOCK, levels, sku="hat", on_hand=100)
        with httpx.Client(base_url=self.url, trust_env=False, timeout=20) as client:
            for number in range(count):
                self._sell(client, f"key-{number}", "tok_ok" if number % 3 else "tok_declined")

    def _sell(self, client: httpx.Client, key: str, token: str) -> None:
        body = {
            "customer_id": "c1",
            "currency": "GBP",
            "items": [{"sku": "hat", "quantity": 1, "unit_price_minor": 250}],
            "payment_token": token,
        }
        headers = {"Idempotency-Key": key, "Prefer": "wait=10"}
        placed = client.post("/orders", json=body, headers=headers)
        order_id = placed.json()["order_id"]
        self._note(
            Op.PLACE,
            placed,
            key=key,
            order_id=order_id,
            status=placed.json()["status"],
            items=[("hat", 1, 250)],
            total_minor=250,
            currency="GBP",
        )
        seen = client.get(f"/orders/{order_id}")
        shown = seen.json()
        self._note(
            Op.READ, seen, order_id=order_id, version=shown["version"], status=shown["status"]
        )

    def _note(self, op: Op, answer: httpx.Response, **more: Any) -> None:
        assert answer.is_success, answer.text
        took_ms = answer.elapsed.total_seconds() * 1000
        at_ms = round(time.time() * 1000 - took_ms)
        attempt = Attempt(
            op, at_ms, Told.ACCEPTED, took_ms=took_ms, code=answer.status_code, **more
        )
        self.journal.append(attempt)

    def write_journal(self, *, lost: str = "") -> str:
        """The journal as a file, on request with one more order that nobody has."""
        file = self.directory / f"journal{lost}.jsonl"
        phantom = Attempt(Op.PLACE, 1, Told.ACCEPTED, key=lost, code=202)
        file.write_bytes(encode_attempts([*self.journal, *([phantom] if lost else [])]))
        return str(file)

    def charge_again(self) -> None:
        """Let the provider have taken the money for one order twice."""
        ledger = Path(self.environ["NATS_STORE_DIR"]) / "payments.jsonl"
        first = msgspec.json.decode(ledger.read_bytes().splitlines()[0], type=Line)
        second = msgspec.structs.replace(first, id="ch2", charge_id="ch2", key="another")
        with ledger.open("ab") as file:
            file.write(msgspec.json.encode(second) + b"\n")

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(25) == 0, self.log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """One that is running."""
    shop = Shop(tmp_path)
    try:
        shop.wait_ready()
        yield shop
    finally:
        shop.kill()


def test_a_run_is_audited_while_it_lasts_and_after_its_end(shop: Shop, orders: Any) -> None:
    empty = orders("audit", "--json", **shop.environ)
    assert (empty.code, empty.json["verdict"]) == (3, "unknown"), empty.err

    shop.trade(6)
    journal = shop.write_journal()
    during = orders("audit", "--journal", journal, "--json", **shop.environ)
    assert (during.code, during.json["verdict"]) == (0, "passed"), during.out
    assert during.json["figures"] | {"orders": 6, "accepted": 6} == during.json["figures"]

    shop.stop()
    files = ("--traces", str(shop.traces), "--logs", str(shop.log), "--picture", "run.svg")
    after = orders("audit", "--journal", journal, "--complete", *files, "--json", **shop.environ)
    assert (after.code, after.err) == (0, ""), after.out
    verdicts = {one["invariant"]: one["verdict"] for one in after.json["invariants"]}
    assert verdicts == {f"I{n}": "passed" for n in range(1, 14)}
    assert (shop.directory / "run.svg").read_text().startswith("<?xml")

    shop.charge_again()
    broken = orders("audit", **shop.environ)
    assert broken.code == 1
    assert "it was charged 2 times" in broken.out
    assert "verdict: failed" in broken.out

    journal_of_a_lost_order = shop.write_journal(lost="never-there")
    lost = orders("audit", "--journal", journal_of_a_lost_order, "--json", **shop.environ)
    assert lost.json["figures"]["lost"] == 1

    shop.start()
    shop.wait_ready()
    shop.kill()
    assert "was not stopped in order" in orders("audit", **shop.environ).err


def test_files_that_are_not_what_they_should_be_are_wrong_usage(
    orders: Any, tmp_path: Path
) -> None:
    (tmp_path / "journal").write_text('{"op": "steal"}\n')
    done = orders("audit", "--journal", "journal")
    assert done.code == 2
    assert "journal, line 1 is no Attempt" in done.err
    assert orders("audit", "--picture", "run.jpeg").code == 2


def test_without_a_store_there_is_nothing_to_audit(orders: Any) -> None:
    done = orders("audit")
    assert done.code == 1
    assert "orders: " in done.err


def test_people_see_each_invariant_and_the_first_of_many_findings() -> None:
    findings = tuple(Finding("I2", f"o{n}", "it was charged 2 times", n) for n in range(7))
    results = (
        Result("I2", "charged once", Verdict.FAILED, 7, findings),
        Result("I7", "reads", Verdict.NOT_CHECKED, needs="a journal"),
    )
    console = Console(width=100, record=True, file=StringIO())
    show(Report(results, {"orders": 7, "double_charged": 7}), console)
    text = console.export_text()
    assert "I2 o0: it was charged 2 times\n" in text
    assert "I2 o4: it was charged 2 times (record 4)" in text
    assert "I2 ... and 2 more" in text
    assert "needs a journal" in text
    assert "orders 7, double charged 7" in text
    assert text.rstrip().endswith("verdict: failed")
