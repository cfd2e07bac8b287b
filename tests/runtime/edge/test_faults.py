"""/faults: there only where faults are on, strict about what it is sent, and as documented."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest

from runtime.edge import admin_app
from runtime.faults import POINTS, Faults, Hands

COUNTS = {"order": 2, "inventory": 2, "payment": 1}
CRASH = {"point": "shard.after-append", "action": "crash", "actor": "order", "shard": 1}


@pytest.fixture
def faults() -> Faults:
    return Faults(Hands(COUNTS, lambda *_: None))


@pytest.fixture
async def armory(desk: Any, faults: Faults) -> AsyncIterator[httpx.AsyncClient]:
    """The operator's application of an instance with FAULTS=on."""
    app = admin_app(desk, faults=faults)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/faults"), ("POST", "/faults"), ("DELETE", "/faults"), ("DELETE", "/faults/f1")],
)
async def test_where_faults_are_off_there_is_nothing(admin: Any, method: str, path: str) -> None:
    reply = await admin.request(method, path)
    assert reply.status_code == 404
    assert "/faults" not in (await admin.get("/openapi.json")).text


async def test_a_fault_is_armed_seen_and_cleared(armory: Any, faults: Faults) -> None:
    armed = await armory.post("/faults", json={**CRASH, "times": 3, "for_s": 30})
    assert armed.status_code == 201
    assert armed.headers["location"] == "/faults/f1"
    seen = (await armory.get("/faults")).json()
    assert [point["name"] for point in seen["points"]] == list(POINTS)
    [one] = seen["armed"]
    assert {name: one[name] for name in CRASH} == CRASH
    assert (one["times"], one["met"], one["fired"]) == (3, 0, 0)
    assert 29 < one["ends_in_s"] <= 30
    assert (await armory.delete("/faults/f1")).status_code == 204
    assert (await armory.delete("/faults/f1")).status_code == 404
    assert faults.active() == []


async def test_all_faults_are_cleared_at_once(armory: Any, faults: Faults) -> None:
    for _ in range(3):
        await armory.post("/faults", json=CRASH)
    assert (await armory.delete("/faults")).status_code == 204
    assert faults.active() == []


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"point": "nowhere"}, {"point"}),
        ({"action": "explode"}, {"action"}),
        ({"action": "drop", "actor": "x", "shard": 9}, {"action", "actor", "shard"}),
        ({"times": True, "probability": "1", "for_s": 1e9}, {"times", "probability", "for_s"}),
        ({"shard": "1", "actor": "x", "more": 1}, {"shard", "actor", "more"}),
        ({"point": None, "actor": "x"}, {"point"}),
    ],
)
async def test_every_mistake_in_a_body_is_named_and_nothing_is_armed(
    armory: Any, faults: Faults, wrong: dict[str, Any], fields: set[str]
) -> None:
    reply = await armory.post("/faults", json={**CRASH, **wrong})
    assert reply.status_code == 422
    assert {fault["field"] for fault in reply.json()["errors"]} == fields
    assert faults.active() == []


@pytest.mark.parametrize("body", ["[]", "1", '{"action": "crash"}'])
async def test_what_is_no_fault_at_all_is_refused(armory: Any, body: str) -> None:
    kind = {"Content-Type": "application/json"}
    reply = await armory.post("/faults", content=body, headers=kind)
    assert reply.status_code == 422


async def test_a_web_page_cannot_arm_a_fault(armory: Any, faults: Faults) -> None:
    kind = {"Content-Type": "text/plain"}  # What a browser sends to anybody without asking first.
    reply = await armory.post("/faults", content=json.dumps(CRASH), headers=kind)
    assert reply.status_code == 415
    assert faults.active() == []


async def test_more_than_may_be_armed_is_a_conflict(armory: Any, faults: Faults) -> None:
    for _ in range(100):
        faults.inject("shard.after-append", "raise")
    assert (await armory.post("/faults", json=CRASH)).status_code == 409


async def test_every_route_and_every_answer_about_faults_is_documented(
    armory: Any, desk: Any, faults: Faults
) -> None:
    document = (await armory.get("/openapi.json")).json()
    documented = {path for path in document["paths"] if path.startswith("/faults")}
    routes = admin_app(desk, faults=faults).routes
    assert documented == {
        route.path  # type: ignore[attr-defined]  # They are all plain routes.
        for route in routes
        if "/faults" in route.path  # type: ignore[attr-defined]
    }
    armed = await armory.post("/faults", json={**CRASH, "action": "exit", "code": 3})
    check(document, "ArmedView", armed.json())
    check(document, "FaultsView", (await armory.get("/faults")).json())
    check(document, "InjectFault", CRASH)


def check(document: Any, schema: str, value: Any) -> None:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)
