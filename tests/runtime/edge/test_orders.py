"""The orders API as a client meets it, without sockets."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from runtime.desk_types import Unavailable, order_id_for
from runtime.edge import public_app

KEY = {"Idempotency-Key": "k-1"}


def problem(reply: httpx.Response, status: int) -> Any:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert body["status"] == status
    assert body["title"]
    assert body["type"]
    return body


async def test_an_order_is_accepted_with_its_place_and_status(client: Any, order: Any) -> None:
    reply = await client.post("/orders", json=order, headers=KEY)
    order_id = order_id_for("k-1")
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/orders/{order_id}"
    assert reply.json() == {"order_id": order_id, "status": "pending"}
    assert reply.headers["cache-control"] == "no-store"


async def test_the_desk_gets_the_order_in_our_own_words(
    client: Any, desk: Any, order: Any, traceparent: str
) -> None:
    order["total_minor"] = 1530
    await client.post("/orders", json=order, headers={**KEY, "traceparent": traceparent})
    [placed] = desk.orders.values()
    assert placed.customer_id == "17850"
    assert placed.total_minor == 1530
    assert [(i.sku, i.quantity, i.unit_price_minor) for i in placed.items] == [("85123A", 6, 255)]
    assert desk.traceparents == [traceparent]


async def test_a_repeat_is_the_same_order_however_its_json_is_written(
    client: Any, desk: Any, order: Any
) -> None:
    first = await client.post("/orders", json=order, headers=KEY)
    again = dict(reversed(order.items()))
    second = await client.post("/orders", json=again, headers=KEY)
    assert second.status_code == 202
    assert second.json() == first.json()
    assert len(desk.orders) == 1


async def test_a_key_used_for_another_body_is_refused(client: Any, order: Any) -> None:
    await client.post("/orders", json=order, headers=KEY)
    order["items"][0]["quantity"] = 7
    reply = await client.post("/orders", json=order, headers=KEY)
    assert problem(reply, 422)["type"] == "urn:orders:problem:idempotency-key-reused"


def test_an_order_id_is_a_subject_token_derived_from_the_key() -> None:
    assert order_id_for("k-1") == order_id_for("k-1") != order_id_for("k-2")
    assert len(order_id_for("k-1")) == 27
    assert order_id_for("k-1").isalnum()


def test_ids_do_not_change_where_there_are_no_tenants_and_each_tenant_has_its_own() -> None:
    assert order_id_for("k-1") == "opq24lilyluqhatse2xpex24byh"
    assert order_id_for("k-1", "a") != order_id_for("k-1", "b") != order_id_for("k-1")
    assert order_id_for("k-1", "a") == order_id_for("k-1", "a")
    assert order_id_for("b:c", "a") != order_id_for("c", "a:b")
    assert order_id_for("bc", "a") != order_id_for("c", "ab")


@pytest.fixture
async def tenants(desk: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an instance that is told who the customer is."""
    app = public_app(desk, tenant_header="X-Tenant")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


async def test_the_same_key_of_two_tenants_is_two_orders_and_of_one_is_one(
    tenants: httpx.AsyncClient, desk: Any, order: Any
) -> None:
    ids = []
    for tenant in ("a", "b", "a"):
        headers = {"Idempotency-Key": "k-1", "X-Tenant": tenant}
        reply = await tenants.post("/orders", json=order, headers=headers)
        assert reply.status_code == 202
        ids.append(reply.json()["order_id"])
    assert ids == [order_id_for("k-1", "a"), order_id_for("k-1", "b"), order_id_for("k-1", "a")]
    assert set(desk.orders) == set(ids)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ([], "There is none"),
        ([b""], "This one is not"),
        ([b"a b"], "This one is not"),
        ([b"\xe9"], "This one is not"),
        ([b"a" * 256], "This one is not"),
        ([b"a", b"b"], "There are 2"),
    ],
)
async def test_an_order_of_nobody_knows_whom_is_refused(
    tenants: httpx.AsyncClient, desk: Any, order: Any, given: list[bytes], seen: str
) -> None:
    headers = [(b"Idempotency-Key", b"k-1"), *((b"X-Tenant", value) for value in given)]
    reply = await tenants.post("/orders", json=order, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["detail"].endswith(f"{seen}.")
    assert "X-Tenant" in reply.json()["detail"]
    assert desk.orders == {}


async def test_who_the_customer_is_stands_in_the_description_where_it_is_asked_for(
    tenants: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    for asked, names in ((tenants, ["X-Tenant"]), (client, [])):
        document = (await asked.get("/openapi.json")).json()
        parameters = document["paths"]["/orders"]["post"]["parameters"]
        required = [one["name"] for one in parameters if one["required"]]
        assert required == [*names, "Idempotency-Key"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Idempotency-Key": ""},
        {"Idempotency-Key": "k" * 256},
        {"Idempotency-Key": "two words"},
        {"Idempotency-Key": "tab\tbed"},
        {"Idempotency-Key": "caf\u00e9"},
        [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
    ],
)
async def test_without_one_usable_key_there_is_no_order(
    client: Any, desk: Any, order: Any, headers: Any
) -> None:
    headers = httpx.Headers(headers, encoding="latin-1")
    reply = await client.post("/orders", json=order, headers=headers)
    assert "Idempotency-Key" in problem(reply, 400)["detail"]
    assert not desk.orders


async def test_a_key_of_255_characters_is_fine(client: Any, order: Any) -> None:
    reply = await client.post("/orders", json=order, headers={"Idempotency-Key": "~" * 255})
    assert reply.status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/json; charset=utf-7",
        "application/json; charset=latin-1",
        "application/xml",
        "application/problem+json",
        "application/jsonx",
    ],
)
async def test_another_content_type_is_refused(client: Any, content_type: str | None) -> None:
    headers = {**KEY, **({"Content-Type": content_type} if content_type else {})}
    problem(await client.post("/orders", content=b"{}", headers=headers), 415)


async def test_two_content_types_are_one_too_many(client: Any, order: Any) -> None:
    twice = [("Content-Type", "application/json"), ("Content-Type", "application/json")]
    headers = [*KEY.items(), *twice]
    problem(await client.post("/orders", content=b"{}", headers=headers), 415)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'],
)
async def test_json_in_utf_8_may_be_said_in_several_ways(
    client: Any, order: Any, content_type: str
) -> None:
    body = httpx.Request("POST", "http://x", json=order).content
    headers = {**KEY, "Content-Type": content_type}
    assert (await client.post("/orders", content=body, headers=headers)).status_code == 202


async def test_waiting_answers_201_with_the_finished_order(
    client: Any, order: Any, autojump_clock: Any
) -> None:
    reply = await client.post("/orders", json=order, headers={**KEY, "Prefer": "wait=5"})
    assert reply.status_code == 201
    assert reply.json()["status"] == "confirmed"
    assert reply.headers["location"] == f"/orders/{order_id_for('k-1')}"
    assert reply.headers["preference-applied"] == "wait=5"


@pytest.mark.parametrize("becomes", ["confirmed", "needs_attention"])
async def test_waiting_in_vain_answers_202_with_the_newest_status(
    client: Any, desk: Any, order: Any, becomes: str, autojump_clock: Any
) -> None:
    desk.becomes = becomes
    desk.becomes_after_s = 0.0 if becomes == "needs_attention" else 60.0
    reply = await client.post("/orders", json=order, headers={**KEY, "Prefer": "wait=9999"})
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == "wait=30"
    assert reply.json()["status"] == ("pending" if becomes == "confirmed" else "needs_attention")
    assert trio.current_time() < 31


@pytest.mark.parametrize("prefer", ["wait=-1", "wait=soon", "await=3", "respond-async", "wait"])
async def test_a_preference_that_nobody_knows_is_ignored(
    client: Any, order: Any, prefer: str
) -> None:
    reply = await client.post("/orders", json=order, headers={**KEY, "Prefer": prefer})
    assert reply.status_code == 202
    assert "preference-applied" not in reply.headers


async def test_a_wait_among_other_preferences_counts(
    client: Any, order: Any, autojump_clock: Any
) -> None:
    headers = {**KEY, "Prefer": 'respond-async, Wait="3"; foo=1'}
    reply = await client.post("/orders", json=order, headers=headers)
    assert reply.headers["preference-applied"] == "wait=3"


async def test_a_desk_that_outstays_the_wait_does_not_hold_the_client(
    client: Any, desk: Any, order: Any, autojump_clock: Any
) -> None:
    async def wait_terminal(order_id: str, timeout_s: float) -> bytes | None:
        await trio.sleep_forever()

    desk.wait_terminal = wait_terminal
    reply = await client.post("/orders", json=order, headers={**KEY, "Prefer": "wait=5"})
    assert reply.status_code == 202
    assert trio.current_time() <= 7


async def test_what_breaks_while_waiting_does_not_undo_the_202(
    client: Any, desk: Any, order: Any
) -> None:
    async def wait_terminal(order_id: str, timeout_s: float) -> bytes | None:
        raise Unavailable("broker away")

    desk.wait_terminal = wait_terminal
    reply = await client.post("/orders", json=order, headers={**KEY, "Prefer": "wait=5"})
    assert reply.status_code == 202


async def test_unavailable_is_503_with_its_reason_and_when_to_return(
    client: Any, desk: Any, order: Any
) -> None:
    desk.unavailable = Unavailable("the broker is away", retry_after_s=3)
    reply = await client.post("/orders", json=order, headers=KEY)
    assert "The broker is away" in problem(reply, 503)["detail"]
    assert reply.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/orders"), ("GET", "/orders/o1"), ("POST", "/orders/o1/cancel")]
)
async def test_a_silent_desk_is_503_within_two_seconds(
    client: Any, desk: Any, order: Any, method: str, path: str, autojump_clock: Any
) -> None:
    desk.stuck = True
    reply = await client.request(method, path, json=order, headers=KEY)
    assert "may still happen" in problem(reply, 503)["detail"]
    assert reply.headers["retry-after"] == "1"
    assert trio.current_time() <= 2.0


async def test_an_order_is_shown_as_the_desk_has_it(client: Any, desk: Any, order: Any) -> None:
    placed = await client.post("/orders", json=order, headers=KEY)
    reply = await client.get(placed.headers["location"])
    assert reply.status_code == 200
    assert reply.content == await desk.view(order_id_for("k-1"))
    head = await client.head(placed.headers["location"])
    assert head.status_code == 200


@pytest.mark.parametrize(
    "order_id",
    ["o1", "no.such", "*", ">", "%20", "o" * 300, "caf\u00e9", "'; DROP TABLE", "a%0D%0Ab"],
)
@pytest.mark.parametrize("ask", ["GET /orders/{}", "POST /orders/{}/cancel"])
async def test_unknown_and_malformed_orders_are_equally_not_found(
    client: Any, order_id: str, ask: str
) -> None:
    method, path = ask.split()
    problem(await client.request(method, path.format(order_id)), 404)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pending", 200),
        ("cancelled", 200),
        ("reserved", 202),
        ("confirmed", 409),
        ("rejected", 409),
    ],
)
async def test_a_cancel_answers_by_what_the_order_is(
    client: Any, desk: Any, order: Any, status: str, expected: int
) -> None:
    await client.post("/orders", json=order, headers=KEY)
    order_id = order_id_for("k-1")
    desk.statuses[order_id] = status
    reply = await client.post(f"/orders/{order_id}/cancel")
    if expected == 409:
        assert problem(reply, 409)["state"] == status
    else:
        assert reply.status_code == expected
        assert reply.json()["order_id"] == order_id


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/orders", {"POST"}),
        ("DELETE", "/orders/o1", {"GET", "HEAD"}),
        ("GET", "/orders/o1/cancel", {"POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("OPTIONS", "/orders", {"POST"}),
        ("TRACE", "/orders", {"POST"}),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_are_right(
    client: Any, method: str, path: str, allow: set[str]
) -> None:
    reply = await client.request(method, path)
    problem(reply, 405)
    assert set(reply.headers["allow"].split(", ")) == allow


@pytest.mark.parametrize("path", ["/", "/Orders", "/orders/", "/orders/o1/", "/nowhere", "/docs"])
async def test_an_unknown_path_is_404_and_nobody_is_redirected(client: Any, path: str) -> None:
    problem(await client.get(path), 404)


async def test_a_bug_is_500_without_a_word_of_what_it_was(
    client: Any, desk: Any, order: Any, traceparent: str
) -> None:
    desk.broken = True
    headers = {**KEY, "traceparent": traceparent}
    reply = await client.post("/orders", json=order, headers=headers)
    assert problem(reply, 500)["trace_id"] == traceparent[3:35]
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text


@pytest.mark.parametrize(
    "malformed",
    [
        "nonsense",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-" + "x" * 600,
    ],
)
async def test_a_malformed_trace_context_is_ignored_and_the_order_served(
    client: Any, desk: Any, order: Any, malformed: str
) -> None:
    headers = {**KEY, "traceparent": malformed, "tracestate": "x" * 600, "baggage": "y" * 9000}
    assert (await client.post("/orders", json=order, headers=headers)).status_code == 202
    assert desk.traceparents == [None]


async def test_a_refusal_carries_the_clients_trace(client: Any, traceparent: str) -> None:
    reply = await client.get("/orders/o1", headers={"traceparent": traceparent})
    assert problem(reply, 404)["trace_id"] == traceparent[3:35]
