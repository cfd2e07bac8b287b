"""One request's way through the application: a call in the connection's own task, without a queue in between.

Hypercorn's stream knows ASGI's rules for answers, and asks a task group to start the application. This is that task
group: it keeps what it was asked to start, and calls it once the stream is ready.
"""

import logging
from collections.abc import Awaitable, Callable

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

Send = Callable[[ASGISendEvent | None], Awaitable[None]]

_log = logging.getLogger(__name__)


class Exchange(TaskGroup):
    """The application's end of one request, whose body is all there."""

    def __init__(self, body: bytes, wait_gone: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._body: bytes | None = body
        self._wait_gone = wait_gone
        self._is_answered = False
        self._call: Callable[[], Awaitable[None]]
        self._send: Send

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,  # noqa: ARG002  # A parameter of hypercorn's.
        scope: Scope,
        send: Send,
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Note what is to be called; `run` does it."""
        to_thread, from_thread = trio.to_thread.run_sync, trio.from_thread.run
        self._call = lambda: app(scope, self._receive, send, to_thread, from_thread)
        self._send = send
        return self._put

    async def run(self) -> None:
        """Have the application answer. What it raises is logged, and answered with 500 where nothing was yet."""
        call, send = self._call, self._send
        del self._call, self._send  # The stream knows us: a ring would be left to the collector.
        try:
            await call()
        except* Exception:  # noqa: BLE001  # One answer that fails is not the end of the connection.
            _log.exception("the application failed")
        await send(None)

    async def _put(self, _: ASGIReceiveEvent) -> None:
        """The one thing that is left to be told: the answer is complete."""
        self._is_answered = True

    async def _receive(self) -> ASGIReceiveEvent:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self._is_answered:
            await self._wait_gone()
        return {"type": "http.disconnect"}
