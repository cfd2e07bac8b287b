"""/openapi.json is complete and true: what is answered is documented, down to its schema and headers."""

import json
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest

from actors.order import OrderActor
from actors.order_state import OrderState, view
from messages.generated.orders.v1 import OrderCreated, OrderItem
from runtime.desk_types import Health, Unavailable, order_id_for
from runtime.edge import admin_app, public_app

KEY = {"Idempotency-Key": "k-1"}
ORDER_ID = order_id_for("k-1")
EVERYDAY = {"content-type", "content-length", "cache-control"}


def check_documented(document: Any, reply: httpx.Response, path: str, method: str) -> None:
    """The reply's status, media type, headers and body are as the document says."""
    told = document["paths"][path][method]["responses"][str(reply.status_code)]
    extra = {name for name in reply.headers if name not in EVERYDAY}
    assert extra <= {name.lower() for name in told.get("headers", {})}
    for name, header in told.get("headers", {}).items():
        assert name in reply.headers or not header.get("required"), name
    media_type = reply.headers.get("content-type", "").partition(";")[0]
    if media_type == "application/json" or media_type == "application/problem+json":
        check_schema(document, told["content"][media_type].get("schema", {}), reply.json())
    elif media_type:
        assert media_type in told["content"]


def check_schema(document: Any, schema: Any, value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


async def fetch(client: httpx.AsyncClient) -> Any:
    return (await client.get("/openapi.json")).json()


async def test_every_answer_about_orders_is_documented(client: Any, desk: Any, order: Any) -> None:
    document = await fetch(client)

    async def ask(method: str, path: str, **options: Any) -> int:
        reply = await client.request(method, path.replace("{order_id}", ORDER_ID), **options)
        check_documented(document, reply, path, method.lower())
        status: int = reply.status_code
        return status

    place, show, cancel = "/orders", "/orders/{order_id}", "/orders/{order_id}/cancel"
    json_kind = {**KEY, "Content-Type": "application/json"}
    seen = [
        await ask("GET", show),
        await ask("POST", cancel),
        await ask("POST", place, json=order, headers=KEY),
        await ask("POST", place, json={}, headers={**KEY}),
        await ask("POST", place, json=order),
        await ask("POST", place, content=b"{", headers=json_kind),
        await ask("POST", place, content=b"x", headers=KEY),
        await ask("GET", show),
        await ask("POST", cancel),
        await ask("POST", place, json=order, headers={**KEY, "Prefer": "wait=1"}),
        await ask("POST", cancel),
    ]
    assert seen == [404, 404, 202, 422, 400, 400, 415, 200, 200, 201, 409]
    desk.statuses[ORDER_ID] = "reserved"
    assert await ask("POST", cancel) == 202
    desk.unavailable = Unavailable("The broker is away")
    assert await ask("POST", place, json=order, headers=KEY) == 503
    assert await ask("GET", show) == 503
    desk.broken = True
    assert await ask("GET", show) == 500


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/startupz"])
@pytest.mark.parametrize("well", [True, False])
async def test_every_answer_of_a_probe_is_documented(
    client: Any, desk: Any, path: str, well: bool
) -> None:
    desk.state = Health(well, well, well, () if well else ("the broker is away",))
    check_documented(await fetch(client), await client.get(path), path, "get")


async def test_every_answer_to_an_operator_is_documented(admin: Any) -> None:
    document = await fetch(admin)
    for path in ("/metrics", "/tree", "/stock"):
        check_documented(document, await admin.get(path), path, "get")
    for body in ({"A": 1}, {"HELD": 1}, {"A": -1}):
        reply = await admin.put("/stock", json=body)
        check_documented(document, reply, "/stock", "put")


async def test_every_route_is_documented_and_every_documented_path_is_a_route(
    client: Any, admin: Any, desk: Any
) -> None:
    for asked, app in ((client, public_app(desk)), (admin, admin_app(desk))):
        documented = {
            (path, method.upper())
            for path, methods in (await fetch(asked))["paths"].items()
            for method in methods
            if method != "parameters"
        }
        routed = {
            (route.path, method)  # type: ignore[attr-defined]  # They are all plain routes.
            for route in app.routes
            for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
        }
        assert documented == routed - {("/openapi.json", "GET")}


async def test_the_documented_body_is_the_one_that_is_taken(client: Any, order: Any) -> None:
    document = await fetch(client)
    schema = {"$ref": "#/components/schemas/PlaceOrder"}
    check_schema(document, schema, order)
    for field, wrong in (("currency", "gbp"), ("items", []), ("status", "x"), ("customer_id", 5)):
        with pytest.raises(jsonschema.ValidationError):
            check_schema(document, schema, {**order, field: wrong})


async def test_what_the_order_actor_shows_is_the_documented_view(client: Any) -> None:
    created = OrderCreated(
        order_id=ORDER_ID,
        customer_id="17850",
        currency="GBP",
        items=[OrderItem(sku="85123A", quantity=6, unit_price_minor=255)],
        total_minor=1530,
        payment_token="tok_ok",
    )
    actor = OrderActor(reservation_ttl_ms=60_000)
    [state] = actor.react({}, created, 1_323_435_000_000).states.values()
    assert isinstance(state, OrderState)
    shown = json.loads(json.dumps({**view(state), "trace_id": None}))
    check_schema(await fetch(client), {"$ref": "#/components/schemas/OrderView"}, shown)


async def test_every_reference_leads_somewhere(client: Any, admin: Any) -> None:
    for asked in (client, admin):
        document = await fetch(asked)
        for part in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]:
            assert part.partition('"')[0] in document["components"]["schemas"]
