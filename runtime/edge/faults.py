"""Fault injection over HTTP: on the operator's address and with FAULTS=on alone; else these paths are 404."""

from collections.abc import Iterable
from typing import Any

import trio
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.edge import problems
from runtime.edge.answers import json_answer
from runtime.edge.bodies import InjectFault, fault_of, parse_body, unprocessable
from runtime.edge.headers import require_json
from runtime.edge.problems import Problem
from runtime.faults import Fault, Faults, NoSuchFaultError, TooManyFaultsError
from runtime.faults.injector import describe_points


def fault_routes(faults: Faults) -> Iterable[Route]:
    """The routes under /faults."""
    handlers = _Handlers(faults)
    return (
        Route("/faults", handlers.all, methods=["GET", "POST", "DELETE"]),
        Route("/faults/{fault_id}", handlers.one, methods=["DELETE"]),
    )


class _Handlers:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def all(self, request: Request) -> Response:
        match request.method:
            case "POST":
                return await self._inject(request)
            case "DELETE":
                self._faults.clear_all()
                return Response(status_code=204)
        now_s = trio.current_time()
        return json_answer(
            {
                "points": describe_points(),
                "facts": sorted(self._faults.facts),
                "armed": [armed.describe(now_s) for armed in self._faults.active()],
            }
        )

    async def one(self, request: Request) -> Response:
        try:
            self._faults.clear(request.path_params["fault_id"])
        except NoSuchFaultError as error:
            raise Problem(404, "No such fault is armed; its time may be over.") from error
        return Response(status_code=204)

    async def _inject(self, request: Request) -> Response:
        require_json(request)
        fault = self._read(await request.body())
        try:
            armed = self._faults.arm(fault)
        except TooManyFaultsError as error:
            raise Problem(409, str(error), kind="too-many-faults") from error
        location = {"location": f"/faults/{armed.id}"}
        return json_answer(armed.describe(trio.current_time()), 201, location)

    def _read(self, body: bytes) -> Fault:
        """The fault in a body; what is wrong with its fields and what they could not mean are told together."""
        raw = parse_body(body)
        asked: InjectFault | None
        wrong: list[problems.Fault] = []
        try:
            asked = InjectFault.model_validate(raw)
        except ValidationError as error:
            wrong = list(map(fault_of, error.errors(include_url=False, include_input=False)))
            asked = _what_is_sound(raw, {fault.field for fault in wrong})
        if asked is None:
            raise unprocessable(wrong)
        fault = Fault(**dict(asked))
        wrong += [problems.Fault(*mistake) for mistake in self._faults.find_mistakes(fault)]
        if wrong:
            raise unprocessable(wrong)
        return fault


def _what_is_sound(raw: Any, wrong: set[str]) -> InjectFault | None:
    """The body less its wrong fields, where that still says where and what."""
    if not isinstance(raw, dict):
        return None
    try:
        return InjectFault.model_validate({k: v for k, v in raw.items() if k not in wrong})
    except ValidationError:
        return None
