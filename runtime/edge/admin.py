"""The operator's API: metrics, the supervision tree, stock. For a loopback address; it asks for no password."""

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
from runtime.edge.headers import require_json, traceparent
from runtime.edge.problems import Fault, Problem


def admin_app(desk: OrderDesk, *, registry: CollectorRegistry = REGISTRY) -> Starlette:
    """The application for ADMIN_BIND."""
    admin = _Admin(desk, registry)
    return build_app(
        [
            Route("/metrics", admin.metrics),
            Route("/tree", admin.tree),
            Route("/orders/{order_id}/retry", admin.retry, methods=["POST"]),
            Route("/stock", admin.stock, methods=["GET", "PUT"]),
            Route("/openapi.json", _describe),
        ]
    )


async def _describe(_: Request) -> Response:
    return json_bytes(openapi.ADMIN)


class _Admin:
    def __init__(self, desk: OrderDesk, registry: CollectorRegistry) -> None:
        self._desk = desk
        self._registry = registry

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
