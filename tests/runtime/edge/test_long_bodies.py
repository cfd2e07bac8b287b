"""Bodies of orders with more lines than usual, where the shop allows them."""

import json
from typing import Any

import httpx
import pytest

from actors.order_check import LINES_LIMIT, LINES_MAX
from runtime.edge.limits import KIB, Limits
from runtime.edge.public import public_app

SKUS = [f"{n:~>64}" for n in range(LINES_LIMIT)]  # As long as they may be.


def body(lines: int) -> bytes:
    """A POST /orders as large as so many lines may make it."""
    line = {"quantity": 2**31 - 1, "unit_price_minor": 1_000_000}
    items = [{"sku": sku, **line} for sku in SKUS[:lines]]
    order = {"customer_id": "c" * 256, "currency": "GBP", "payment_token": "t" * 128}
    return json.dumps({**order, "items": items}).encode()


@pytest.mark.parametrize(("lines_max", "status"), [(LINES_MAX, 422), (LINES_MAX + 1, 202)])
async def test_the_edge_takes_as_many_lines_as_it_is_told(
    desk: Any, lines_max: int, status: int
) -> None:
    transport = httpx.ASGITransport(public_app(desk, lines_max=lines_max))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        headers = {"Idempotency-Key": "k-1", "Content-Type": "application/json"}
        reply = await client.post("/orders", content=body(LINES_MAX + 1), headers=headers)
        document = (await client.get("/openapi.json")).json()
    assert reply.status_code == status
    schema = document["components"]["schemas"]["PlaceOrder"]
    assert schema["properties"]["items"]["maxItems"] == lines_max
    assert schema["description"].startswith("An order. Each SKU stands on one line")


@pytest.mark.parametrize(
    ("lines_max", "bytes_max"), [(1, 64 * KIB), (100, 64 * KIB), (1_000, 256_000)]
)
def test_a_body_may_be_as_large_as_its_lines_make_it(lines_max: int, bytes_max: int) -> None:
    limits = Limits.of_lines(lines_max)
    assert limits == Limits(body_bytes_max=bytes_max)
    assert len(body(lines_max)) < limits.body_bytes_max
