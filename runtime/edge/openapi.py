"""The OpenAPI 3.1 documents, written beside the handlers they describe and served as constants."""

from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from runtime.edge.bodies import InjectFault, PlaceOrder, place_order_of
from runtime.edge.problems import MEDIA_TYPE
from runtime.edge.schemas import (
    ADMIN_ANSWERS,
    ANSWERS,
    FAULT_ANSWERS,
    Accepted,
    ArmedView,
    FaultsView,
    Levels,
    OrderView,
    Probe,
    ProblemView,
    StockBySku,
    ref,
)

Json = dict[str, Any]

_TEXT = {"type": "string"}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
_LOCATION = {"Location": {"description": "Where the order is.", "schema": _TEXT, "required": True}}
_APPLIED = {"Preference-Applied": {"description": "The wait that was granted.", "schema": _TEXT}}
_ALLOW = {"Allow": {"description": "The methods of this path.", "schema": _TEXT}}

_PROBLEMS = {
    400: "Not HTTP, not JSON, or without a usable Idempotency-Key (or tenant, where one is asked for).",
    404: "There is no such order.",
    405: "This path does not take this method.",
    408: "The body did not arrive in time.",
    409: "Too late; `state` says what the order is.",
    413: "The body is larger than 64 KiB, and than 256 bytes for each line that an order may have.",
    414: "The URL is longer than 8 KiB.",
    415: "The body is not application/json in UTF-8, or is encoded.",
    422: "`errors` names every fault of the body; or the key belongs to an order with another body.",
    431: "The headers are larger than 16 KiB, or more than 100.",
    500: "Our fault.",
    501: "This method is not known.",
    503: "Not now, or the outcome is unknown: ask again the same way.",
}
_HEADERS: dict[int, Json] = {405: _ALLOW, 503: _RETRY_AFTER}
_ANYWHERE = (400, 405, 414, 415, 431, 500, 501, 503)  # Of any request.
_WITH_BODY = (408, 413)


def _problems(*statuses: int) -> Json:
    content = {MEDIA_TYPE: {"schema": ref(ProblemView)}}
    return {
        str(status): {
            "description": _PROBLEMS[status],
            "content": content,
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted({*statuses, *_ANYWHERE})
    }


def _json(description: str, model: type[BaseModel], headers: Json | None = None) -> Json:
    content = {"application/json": {"schema": ref(model)}}
    return {"description": description, "content": content, "headers": headers or {}}


def _body(model: type[BaseModel]) -> Json:
    return {"required": True, "content": {"application/json": {"schema": ref(model)}}}


def _header(name: str, description: str, schema: Json, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": description,
        "schema": schema,
    }


_KEY = _header(
    "Idempotency-Key",
    "The same for every attempt at one order; the order's id is derived from it.",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    required=True,
)
_PREFER = _header("Prefer", "`wait=N`: up to N seconds (30 at most) for a terminal status.", _TEXT)
_TRACEPARENT = _header("traceparent", "W3C trace context to continue.", _TEXT)
_ORDER_ID = {"name": "order_id", "in": "path", "required": True, "schema": _TEXT}

_PLACE = {
    "operationId": "placeOrder",
    "summary": "Place an order; durable when it is answered",
    "parameters": [_KEY, _PREFER, _TRACEPARENT],
    "requestBody": _body(PlaceOrder),
    "responses": {
        "201": _json("Terminal within the wait.", OrderView, _LOCATION | _APPLIED),
        "202": _json("Durable; not known to be terminal.", Accepted, _LOCATION | _APPLIED),
        **_problems(422, *_WITH_BODY),
    },
}
_SHOW = {
    "operationId": "showOrder",
    "summary": "One order: status, items, total, payment, reservation, history",
    "parameters": [_TRACEPARENT],
    "responses": {"200": _json("The order.", OrderView), **_problems(404)},
}
_LAST_EVENT_ID = _header("Last-Event-ID", "The id of the event that was heard last.", _TEXT)
_EVENTS = {
    "operationId": "followOrder",
    "summary": "Its history as server-sent events: what was, then what comes, until it is final",
    "parameters": [_LAST_EVENT_ID],
    "responses": {
        "200": {
            "description": "One event for each line of the history; its id is its place there.",
            "content": {"text/event-stream": {"schema": _TEXT}},
        },
        "204": {"description": "It is final, and everything has been heard."},
        **_problems(404),
    },
}
_CANCEL = {
    "operationId": "cancelOrder",
    "summary": "Ask for an order to be cancelled, and refunded if money was taken",
    "parameters": [_TRACEPARENT],
    "responses": {
        "200": _json("It is cancelled.", Accepted),
        "202": _json("It will be, once its payment is known to be undone.", Accepted),
        **_problems(404, 409, *_WITH_BODY),
    },
}


def _probe(name: str, summary: str) -> Json:
    responses = {"200": _json("Yes.", Probe), **_problems()}
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


_PATHS: Json = {
    "/orders/{order_id}": {"parameters": [_ORDER_ID], "get": _SHOW},
    "/orders/{order_id}/events": {"parameters": [_ORDER_ID], "get": _EVENTS},
    "/orders/{order_id}/cancel": {"parameters": [_ORDER_ID], "post": _CANCEL},
    "/health": _probe("health", "Connected to NATS?"),
    "/livez": _probe("live", "Does the process answer?"),
    "/readyz": _probe("ready", "Ready for orders? Otherwise `reasons` says why not"),
    "/startupz": _probe("started", "Has everything started once?"),
}
_ADMIN_PATHS: Json = {
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "summary": "Prometheus metrics",
            "responses": {
                "200": {"description": "Metrics.", "content": {"text/plain": {"schema": _TEXT}}},
                **_problems(),
            },
        }
    },
    "/tree": {
        "get": {
            "operationId": "tree",
            "summary": "The supervision tree",
            "responses": {
                "200": {"description": "As it is.", "content": {"application/json": {}}},
                **_problems(),
            },
        }
    },
    "/orders/{order_id}/retry": {
        "parameters": [_ORDER_ID],
        "post": {
            "operationId": "retryOrder",
            "summary": "Ask the payment provider again about an order that needs attention",
            "parameters": [_TRACEPARENT],
            "responses": {
                "202": _json("It is being asked about.", Accepted),
                **_problems(404, 409, *_WITH_BODY),
            },
        },
    },
    "/stock": {
        "get": {
            "operationId": "stock",
            "summary": "Every stock item",
            "responses": {"200": _json("By SKU.", StockBySku), **_problems()},
        },
        "put": {
            "operationId": "setStock",
            "summary": "Set what is on hand",
            "requestBody": _body(Levels),
            "responses": {"204": {"description": "Set."}, **_problems(409, 422, *_WITH_BODY)},
        },
    },
}

_FAULT_ID = {"name": "fault_id", "in": "path", "required": True, "schema": _TEXT}
_FAULT_PATHS: Json = {
    "/faults": {
        "get": {
            "operationId": "faults",
            "summary": "Every failpoint, and what is armed",
            "responses": {"200": _json("They are these.", FaultsView), **_problems()},
        },
        "post": {
            "operationId": "injectFault",
            "summary": "Arm a fault",
            "requestBody": _body(InjectFault),
            "responses": {
                "201": _json("It is armed.", ArmedView, _LOCATION),
                **_problems(409, 422, *_WITH_BODY),
            },
        },
        "delete": {
            "operationId": "clearFaults",
            "summary": "Disarm them all",
            "responses": {"204": {"description": "None is armed."}, **_problems()},
        },
    },
    "/faults/{fault_id}": {
        "parameters": [_FAULT_ID],
        "delete": {
            "operationId": "clearFault",
            "summary": "Disarm one",
            "responses": {"204": {"description": "It is not armed."}, **_problems(404)},
        },
    },
}


def _document(title: str, paths: Json, models: tuple[type[BaseModel], ...]) -> bytes:
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": title, "version": "1"},
            "paths": paths,
            "components": {"schemas": schemas["$defs"]},
        }
    )


def public(tenant_header: str | None, lines_max: int) -> bytes:
    """The document of the public address; a header that names the tenant is a parameter of placing an order."""
    place = _PLACE
    if tenant_header is not None:
        tenant = _header(
            tenant_header,
            "Who the customer is, as the platform says; the same key of two tenants is two orders.",
            {"type": "string", "pattern": "^[!-~]{1,255}$"},
            required=True,
        )
        place = {**_PLACE, "parameters": [tenant, *_PLACE["parameters"]]}
    return _document(
        "Orders", {**_PATHS, "/orders": {"post": place}}, (place_order_of(lines_max), *ANSWERS)
    )


ADMIN = _document("Orders, for operators", _ADMIN_PATHS, (Levels, Accepted, *ADMIN_ANSWERS))
ADMIN_WITH_FAULTS = _document(
    "Orders, for operators who break things",
    _ADMIN_PATHS | _FAULT_PATHS,
    (Levels, Accepted, InjectFault, *ADMIN_ANSWERS, *FAULT_ANSWERS),
)
