"""How handlers answer: JSON on success, a problem for every error, whoever raised it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actors.actor import Answer, Outcome
from runtime.desk_types import ORDER_ID, Unavailable
from runtime.edge.headers import trace_id, traceparent
from runtime.edge.problems import MEDIA_TYPE, Problem

_FRESH = {
    "cache-control": "no-store"
}  # An order moves on by itself, so no answer is worth keeping.
_REASONS = {404: "There is nothing at this path.", 405: "This path does not take this method."}


def build_app(routes: list[Route]) -> Starlette:
    """An application in which every error ends as a problem."""
    app = Starlette(
        routes=routes,
        exception_handlers={
            Problem: _on_problem,
            Unavailable: _on_unavailable,
            HTTPException: _on_http_exception,
            Exception: _on_bug,
        },
    )
    app.router.redirect_slashes = False
    return app


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return json_bytes(msgspec.json.encode(body), status, headers)


def json_bytes(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(body, status, {**_FRESH, **(headers or {})}, "application/json")


def order_id_of(request: Request) -> str:
    order_id: str = request.path_params["order_id"]
    if not ORDER_ID.fullmatch(order_id):
        raise no_such_order()  # Not worth asking, and not to be told apart from an unknown one.
    return order_id


def answer_about(order_id: str, heard: Answer, status: int, too_late: str) -> Response:
    """What became of a request about an order: `status` where it is done, else a problem.

    Raises:
        Problem: 409 with `too_late`, or 404.
    """
    match heard.outcome:
        case Outcome.DONE:
            return json_answer({"order_id": order_id, "status": heard.status}, status)
        case Outcome.TOO_LATE:
            detail = f"The order is {heard.status}; {too_late}."
            raise Problem(409, detail, kind="too-late", members={"state": heard.status})
        case _:
            raise no_such_order()


def no_such_order() -> Problem:
    return Problem(404, "There is no such order.", kind="no-such-order")


def _respond(request: Request, problem: Problem) -> Response:
    body = problem.body(trace_id(traceparent(request)))
    return Response(body, problem.status, {**_FRESH, **problem.headers}, MEDIA_TYPE)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _respond(request, error)


async def _on_unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    reason = error.reason[:1].upper() + error.reason[1:]
    detail = f"{reason}. Ask again the same way (an order: with the same Idempotency-Key)."
    headers = {"Retry-After": str(error.retry_after_s)}
    return _respond(request, Problem(503, detail, kind="unavailable", headers=headers))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = _REASONS.get(error.status_code, error.detail)
    return _respond(request, Problem(error.status_code, detail, headers=error.headers))


async def _on_bug(request: Request, _: Exception) -> Response:
    # Starlette raises it again after this answer, so that the server logs it with its stack.
    return _respond(request, Problem(500, "This is our fault. It has been logged."))
