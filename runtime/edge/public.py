"""The public API: orders, their status, their cancellation, and the probes of the platform."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actors.actor import Outcome
from actors.order_check import LINES_MAX
from actors.order_state import TERMINAL, OrderStatus
from runtime.desk_types import (
    OrderDesk,
    Placed,
    Unavailable,
    order_id_for,
    status_of,
)
from runtime.edge import openapi
from runtime.edge.answers import (
    answer_about,
    build_app,
    json_answer,
    json_bytes,
    no_such_order,
    order_id_of,
)
from runtime.edge.bodies import new_order
from runtime.edge.events import Events
from runtime.edge.headers import (
    idempotency_key,
    preferred_wait_s,
    require_json,
    tenant,
    traceparent,
)
from runtime.edge.problems import Problem

ANSWER_WITHIN_S = 2.0  # A client that hears 503 by then can still try another instance.

T = TypeVar("T")


def public_app(
    desk: OrderDesk,
    *,
    answer_within_s: float = ANSWER_WITHIN_S,
    tenant_header: str | None = None,
    lines_max: int = LINES_MAX,
) -> Starlette:
    """The application for HTTP_BIND; `tenant_header` names the header that says whose an order is."""
    orders = _Orders(desk, answer_within_s, tenant_header, lines_max)
    document = openapi.public(tenant_header, lines_max)

    async def describe(_: Request) -> Response:
        return json_bytes(document)

    probes = _Probes(desk)
    return build_app(
        [
            Route("/orders", orders.place, methods=["POST"]),
            Route("/orders/{order_id}", orders.show),
            Route("/orders/{order_id}/events", Events(desk).show),
            Route("/orders/{order_id}/cancel", orders.cancel, methods=["POST"]),
            Route("/health", probes.health),
            Route("/livez", probes.live),
            Route("/readyz", probes.ready),
            Route("/startupz", probes.started),
            Route("/openapi.json", describe),
        ]
    )


class _Orders:
    def __init__(
        self, desk: OrderDesk, answer_within_s: float, tenant_header: str | None, lines_max: int
    ) -> None:
        self._desk = desk
        self._within_s = answer_within_s
        self._tenant_header = tenant_header
        self._lines_max = lines_max

    async def place(self, request: Request) -> Response:
        require_json(request)
        order_id = order_id_for(idempotency_key(request), tenant(request, self._tenant_header))
        self._desk.admit(order_id)
        order = new_order(await request.body(), order_id, self._lines_max)
        placed = await self._soon(self._desk.place(order, traceparent=traceparent(request)))
        if placed.outcome is not Outcome.DONE:
            raise _refused(placed)
        wait_s = preferred_wait_s(request)
        location = {"location": f"/orders/{placed.order_id}"}
        if wait_s is None:
            return json_answer(
                {"order_id": placed.order_id, "status": placed.status}, 202, location
            )
        return await self._wait(placed, wait_s, location)

    async def _wait(self, placed: Placed, wait_s: int, headers: dict[str, str]) -> Response:
        """201 with the finished order; 202 when it takes longer, or cannot be seen now: it is durable all the same."""
        headers = {**headers, "preference-applied": f"wait={wait_s}"}
        status, view = placed.status, None
        with suppress(Unavailable), trio.move_on_after(wait_s + self._within_s):
            view = await self._desk.wait_terminal(placed.order_id, wait_s)
        if view is not None:
            status = status_of(view)
            if status in TERMINAL:
                return json_bytes(view, 201, headers)
        return json_answer({"order_id": placed.order_id, "status": status}, 202, headers)

    async def show(self, request: Request) -> Response:
        order_id = order_id_of(request)
        view = await self._soon(self._desk.view(order_id))
        if view is None:
            raise no_such_order()
        return json_bytes(view)

    async def cancel(self, request: Request) -> Response:
        order_id = order_id_of(request)
        asked = self._desk.cancel(order_id, traceparent=traceparent(request))
        heard = await self._soon(asked)
        done = heard.status == OrderStatus.CANCELLED
        return answer_about(order_id, heard, 200 if done else 202, "it can no longer be cancelled")

    async def _soon(self, asked: Awaitable[T]) -> T:
        with trio.move_on_after(self._within_s):
            return await asked
        raise Unavailable("No answer in time; what was asked for may still happen")


class _Probes:
    def __init__(self, desk: OrderDesk) -> None:
        self._desk = desk

    async def health(self, _: Request) -> Response:
        health = self._desk.health()
        return _probe(health.connected, health.reasons, "not connected to NATS")

    async def live(self, _: Request) -> Response:
        return _probe(True, (), "")

    async def ready(self, _: Request) -> Response:
        health = self._desk.health()
        return _probe(health.ready, health.reasons, "not ready")

    async def started(self, _: Request) -> Response:
        health = self._desk.health()
        return _probe(health.started, health.reasons, "still starting")


def _probe(well: bool, reasons: tuple[str, ...], otherwise: str) -> Response:
    if well:
        return json_answer({"status": "ok"})
    reasons = reasons or (otherwise,)
    raise Problem(
        503,
        f"{otherwise.capitalize()}: {'; '.join(reasons)}.",
        headers={"Retry-After": "1"},
        members={"reasons": reasons},
    )


def _refused(placed: Placed) -> Problem:
    if placed.outcome is Outcome.REUSED:
        detail = "This Idempotency-Key belongs to an order with another body; use a new key."
        return Problem(422, detail, kind="idempotency-key-reused")
    return Problem(422, placed.detail or "The order contradicts itself.", kind="invalid-order")
