"""The operator's API."""

import json
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from runtime.edge import admin_app


async def test_metrics_are_served_as_prometheus_reads_them(desk: Any) -> None:
    registry = CollectorRegistry()
    Counter("orders_placed", "Orders placed.", registry=registry).inc()
    transport = httpx.ASGITransport(admin_app(desk, registry=registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        plain = await client.get("/metrics")
        modern = await client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert "orders_placed_total 1.0" in plain.text
    assert plain.headers["content-type"].startswith("text/plain")
    assert modern.headers["content-type"].startswith("application/openmetrics-text")


async def test_the_tree_is_served_as_it_stands(admin: Any, desk: Any) -> None:
    assert (await admin.get("/tree")).json() == desk.tree()


async def test_stock_that_is_set_is_listed(admin: Any) -> None:
    assert (await admin.put("/stock", json={"85123A": 10, "22423": 0})).status_code == 204
    listed = (await admin.get("/stock")).json()
    assert listed["85123A"]["available"] == 10
    assert listed["22423"]["on_hand"] == 0


async def test_a_level_that_the_stock_refuses_is_named_with_its_reason(admin: Any) -> None:
    reply = await admin.put("/stock", json={"HELD": 1, "22423": 5})
    assert reply.status_code == 409
    assert reply.json()["errors"] == [{"field": "HELD", "message": "5 are reserved"}]
    assert "22423" in (await admin.get("/stock")).json()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ([], 422),
        ({"A": -1}, 422),
        ({"A": 1.0}, 422),
        ({"A": True}, 422),
        ({"A": "1"}, 422),
        ({"A": None}, 422),
        ({"A": 2**53}, 422),
        ({"two words": 1}, 422),
        ({"": 1}, 422),
        ({"A" * 65: 1}, 422),
        ("not json", 400),
    ],
)
async def test_nonsense_for_stock_changes_nothing(
    admin: Any, desk: Any, body: Any, status: int
) -> None:
    content = "{" if body == "not json" else json.dumps(body)
    reply = await admin.put("/stock", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert not desk.levels


async def test_a_wrong_method_names_all_that_the_path_takes(admin: Any) -> None:
    reply = await admin.delete("/stock")
    assert reply.status_code == 405
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT"}


async def test_the_public_api_is_not_on_the_admin_address(admin: Any) -> None:
    assert (await admin.get("/orders/o1")).status_code == 404


@pytest.mark.parametrize(
    ("order_id", "status"), [("parked", 202), ("confirmed", 409), ("unknown", 404), ("no.id", 404)]
)
async def test_an_order_that_needs_attention_is_looked_at_again(
    admin: Any, desk: Any, order_id: str, status: int
) -> None:
    desk.statuses |= {"parked": "needs_attention", "confirmed": "confirmed"}
    assert (await admin.post(f"/orders/{order_id}/retry")).status_code == status
