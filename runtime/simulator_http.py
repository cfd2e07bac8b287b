"""The simulated provider over HTTP: the same object, so that any process can be its client."""

import logging
from contextlib import aclosing
from typing import cast

import hypercorn
import hypercorn.trio
import trio
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from runtime.gateway import Provider
from runtime.gateway_contract import Reply, Request

BODY_BYTES_MAX = 64 * 1024
TOO_LARGE = Reply(413, b'{"code":"too_large"}')

log = logging.getLogger(__name__)


async def serve(
    provider: Provider,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve over HTTP until cancelled; started with the base URL, once it listens."""
    config = hypercorn.Config()
    config.bind = [f"{host}:{port}"]
    config.errorlog = log
    config.keep_alive_max_requests = 2**31  # A gateway keeps its connections for life.
    framework = cast("ASGIFramework", app(provider))
    async with trio.open_nursery() as nursery:
        binds = await nursery.start(hypercorn.trio.serve, framework, config)
        task_status.started(binds[0])


def app(provider: Provider) -> Starlette:
    """The provider's HTTP face."""

    async def face(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await _read(HttpRequest(scope, receive))
        except ClientDisconnect:
            return
        reply = await _answer(provider, request, receive) if request else TOO_LARGE
        if reply:
            response = HttpResponse(reply.body, reply.status, media_type="application/json")
            await response(scope, receive, send)

    return Starlette(routes=[Mount("/", app=face)])


async def _read(http: HttpRequest) -> Request | None:
    """The request in the contract's words; None if it is too large to be one."""
    body = bytearray()
    async with aclosing(http.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                return None
    return Request(
        http.method,
        http.url.path,
        key=", ".join(http.headers.getlist("idempotency-key")),
        reference=http.query_params.get("reference", ""),
        body=bytes(body),
    )


async def _answer(provider: Provider, request: Request, receive: Receive) -> Reply | None:
    """The reply; None once the caller has hung up, or a scripted hang would outlive its client."""
    reply = None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        reply = await provider.send(request)
        nursery.cancel_scope.cancel()
    return reply
