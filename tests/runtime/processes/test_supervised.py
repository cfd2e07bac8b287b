"""The supervision tree of a real `orders run`, from outside: probes, the order of a stop, the tree, metrics, a hang."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
import trio

Factory = Callable[..., Any]

pytestmark = pytest.mark.slow

ORDER = {
    "customer_id": "c1",
    "currency": "GBP",
    "items": [{"sku": "hat", "quantity": 1, "unit_price_minor": 255}],
}
REQUIRED_STOP_WITHIN_S = 25.0


async def test_s11_readiness_comes_when_the_root_has_started_everything_and_not_before(
    new_instance: Factory, own_nats_server: Any
) -> None:
    own_nats_server.kill()
    shop = new_instance(NATS_URL=own_nats_server.url, PAYMENT_SHARDS="1")
    shop.start()
    await shop.wait_listening()
    async with httpx.AsyncClient() as http:
        for _ in range(3):
            probes = await probe(http, shop)
            assert probes["/livez"].status_code == 200
            assert probes["/startupz"].status_code == probes["/readyz"].status_code == 503
            reasons = probes["/readyz"].json()["reasons"]
            assert reasons == ["not connected to NATS", "still starting", "core/link: starting"]
            await trio.sleep(0.1)
        assert (await tree_of(http, shop))["/"]["state"] == "starting"
        own_nats_server.start()
        await shop.wait_ready()
        nodes = await tree_of(http, shop)
        assert {node["state"] for node in nodes.values()} == {"running"}


async def test_s57_a_stop_answers_what_is_in_flight_and_goes_from_the_door_to_the_broker(
    new_instance: Factory, nursery: trio.Nursery
) -> None:
    shop = new_instance(PAYMENT_CALL_TIMEOUT="5s")
    shop.start()
    await shop.wait_ready()
    answers: list[httpx.Response] = []
    async with httpx.AsyncClient(timeout=20) as http:
        await http.put(f"http://{shop.admin}/stock", json={"hat": 10})

        async def place() -> None:
            headers = {"Idempotency-Key": "in-flight", "Prefer": "wait=3"}
            body = {**ORDER, "payment_token": "tok_timeout_after_charge"}
            answers.append(await http.post(f"{shop.url}/orders", json=body, headers=headers))

        nursery.start_soon(place)
        await trio.sleep(0.5)
        began = time.monotonic()
        shop.terminate()
        await wait_refused(shop.url)
        assert answers == [], "it accepts nothing new while it still answers"
        assert await shop.wait_ended(REQUIRED_STOP_WITHIN_S) == 0
        assert time.monotonic() - began < REQUIRED_STOP_WITHIN_S
        assert answers[0].status_code in (201, 202)
    ended = [line["path"] for line in shop.log if line["event"] == "child_stopped"]
    order = ["http", "door", "core/actors/payment/payment.0", "core/tail", "core", "bridge"]
    assert [path for path in ended if path in order] == order
    assert ended[-1] == "nats-server"


async def test_s57_a_stop_with_a_broker_that_hangs_ends_within_the_grace_period(
    new_instance: Factory, own_nats_server: Any
) -> None:
    shop = new_instance(NATS_URL=own_nats_server.url, SHUTDOWN_GRACE="3s")
    shop.start()
    await shop.wait_ready()
    async with httpx.AsyncClient() as http:
        await http.put(f"http://{shop.admin}/stock", json={f"hat-{n}": 10 for n in range(50)})
    own_nats_server.freeze()
    began = time.monotonic()
    shop.terminate()
    code = await shop.wait_ended(10)
    assert time.monotonic() - began < 3 + 2
    last_words = shop.log[-1]
    assert (code, last_words["event"], last_words["code"]) == (70, "process_ending", 70)
    assert last_words["reason"] == "not stopped within 3 s"


async def test_s68_restarts_are_seen_in_tree_and_metrics_over_http(new_instance: Factory) -> None:
    shop = new_instance(RESTART_BACKOFF_MIN="1s")
    shop.start()
    await shop.wait_ready()
    os.kill(shop.nats_pid, signal.SIGKILL)
    async with httpx.AsyncClient() as http:
        with trio.fail_after(10):
            nodes = await tree_of(http, shop)
            while nodes["nats-server"]["state"] != "restarting":
                nodes = await tree_of(http, shop)
        assert 0 < nodes["nats-server"]["backing_off_s"] <= 1.2
        assert nodes["nats-server"]["last_error"]
        assert (nodes["/"]["children_restarts_in_window"], nodes["/"]["children_intensity"]) == (
            1,
            10,
        )
        reasons = (await http.get(f"{shop.url}/readyz")).json()["reasons"]
        assert any(reason.startswith("nats-server: restarting in ") for reason in reasons)
        metrics = (await http.get(f"http://{shop.admin}/metrics")).text
        assert 'orders_child_state{child="nats-server",state="restarting"} 1.0' in metrics
        await shop.wait_ready()
        metrics = (await http.get(f"http://{shop.admin}/metrics")).text
        restarts = metric(metrics, 'orders_restarts_total{child="nats-server",reason=')
        assert list(restarts.values()) == [1.0]
        assert 'orders_backoff_seconds{child="nats-server"} 0.0' in metrics
        nodes = await tree_of(http, shop)
        assert {"mailbox_lag", "calls_in_flight", "last_progress_s"} <= nodes[
            "core/actors/order/order.0"
        ].keys()


def test_s80_an_instance_whose_loop_hangs_ends_with_70_and_so_does_its_broker(
    new_instance: Factory,
) -> None:
    shop = new_instance()
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", HANGS],
        env=shop.environ,
        cwd=shop.directory,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert process.returncode == 70
    hung_s = time.monotonic() - began
    assert hung_s < 15 + 3, "fifteen seconds, and what it takes to start"
    assert "the trio loop has stood still" in process.stderr
    assert "in blocks" in process.stderr
    port = int((shop.directory / "store" / "port").read_text())
    assert ends_within(3, port), "the kernel ends the broker with its parent"


HANGS = """
import dataclasses, sys, time
import trio
from runtime.config import load
from runtime.instance import run_instance
from runtime.system import System
from supervisors import ChildSpec

async def blocks(*, task_status):
    task_status.started()
    await trio.sleep(0.5)
    time.sleep(1000)

plain = System.spec

def spec(self):
    told = plain(self)
    return dataclasses.replace(told, children=(*told.children, ChildSpec("blocks", blocks)))

System.spec = spec
sys.exit(run_instance(load()))
"""


async def probe(http: httpx.AsyncClient, shop: Any) -> dict[str, httpx.Response]:
    return {
        path: await http.get(f"{shop.url}{path}") for path in ("/livez", "/readyz", "/startupz")
    }


async def tree_of(http: httpx.AsyncClient, shop: Any) -> dict[str, Mapping[str, Any]]:
    """Every node of the tree, by path."""
    nodes = [(await http.get(f"http://{shop.admin}/tree")).json()]
    found = {}
    while nodes:
        node = nodes.pop()
        found[node["path"]] = node
        nodes += node.get("children", ())
    return found


def metric(text: str, start: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith(start))
    return {name: float(value) for name, _, value in lines}


async def wait_refused(url: str) -> None:
    """Wait until nobody listens there any more."""
    host, _, port = url.removeprefix("http://").partition(":")
    with trio.fail_after(5):
        while True:
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                return
            await stream.aclose()
            await trio.sleep(0.01)


def ends_within(patience_s: float, port: int) -> bool:
    """Whether nobody listens on a port any more."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return True
        time.sleep(0.05)
    return False
