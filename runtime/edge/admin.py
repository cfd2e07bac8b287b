"""The operator's API: metrics, the tree, stock, faults. For a loopback address; it asks for no password."""

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actors.actor import Outcome
from runtime.desk_types import OrderDesk
from runtime.edge import openapi
from runtime.edge.answers import (
    answer_about,
    build_app,
    json_answer,
    json_bytes,
    order_id_of,
)
from runtime.edge.bodies import stock_levels
from runtime.edge.faults import fault_routes
from runtime.edge.headers import require_json, traceparent
from runtime.edge.problems import Fault, Problem
from runtime.faults import Faults


def admin_app(
    desk: OrderDesk, *, registry: CollectorRegistry = REGISTRY, faults: Faults | None = None
) -> Starlette:
    """The application for ADMIN_BIND. Without `faults` there is nothing at /faults."""
    admin = _Admin(desk, registry, openapi.ADMIN if faults is None else openapi.ADMIN_WITH_FAULTS)
    return build_app(
        [
            Route("/metrics", admin.metrics),
            Route("/tree", admin.tree),
            Route("/orders/{order_id}/retry", admin.retry, methods=["POST"]),
            Route("/stock", admin.stock, methods=["GET", "PUT"]),
            Route("/openapi.json", admin.describe),
            *(fault_routes(faults) if faults is not None else ()),
        ]
    )


class _Admin:
    def __init__(self, desk: OrderDesk, registry: CollectorRegistry, document: bytes) -> None:
        self._desk = desk
        self._registry = registry
        self._document = document

    async def describe(self, _: Request) -> Response:
        return json_bytes(self._document)

    async def metrics(self, request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": media_type})

    async def tree(self, _: Request) -> Response:
        return json_answer(self._desk.tree())

    async def retry(self, request: Request) -> Response:
        """Somebody has looked at an order that needs attention: ask the payment provider again."""
        order_id = order_id_of(request)
        heard = await self._desk.retry(order_id, traceparent=traceparent(request))
        return answer_about(order_id, heard, 202, "it does not need attention")

    async def stock(self, request: Request) -> Response:
        if request.method != "PUT":
            return json_answer(await self._desk.stock())
        require_json(request)
        levels = stock_levels(await request.body())
        heard = await self._desk.set_stock(levels)
        refused = {sku: said for sku, said in heard.items() if said.outcome is not Outcome.DONE}
        if refused:
            faults = tuple(Fault(sku, said.detail or said.outcome) for sku, said in refused.items())
            detail = f"{len(refused)} of {len(heard)} levels were refused; the others are set."
            raise Problem(409, detail, kind="stock-refused", faults=faults)
        return Response(status_code=204)
