"""The HTTP server: listens, keeps the number of connections within bounds, and stops in order."""

import logging
import os
from collections.abc import Iterator
from socket import socket
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from runtime.edge.connection import Connection
from runtime.edge.limits import Limits
from runtime.edge.problems import Problem
from runtime.edge.wire import Wire

BACKLOG = 1024
LET_IN_MAX = 64  # In one turn of the loop: some milliseconds of it.
NO_ROOM_PAUSE_S = 0.1  # Out of file descriptors: others have to leave first.

_log = logging.getLogger(__name__)


class ListenError(Exception):
    """The address cannot be had; the message says which and why."""


async def serve(
    app: Any,
    bind: str,
    *,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on `host:port` until cancelled; then finish what is under way within the grace.

    Reports the addresses it listens on once it does. Port 0 is any free one.

    Raises:
        ListenError: nothing was served.
    """
    listeners = await _listen(bind)
    server = _Server(app, limits or Limits())
    async with trio.open_nursery() as nursery:
        connections = await nursery.start(server.shelter)
        task_status.started(tuple(_address(listener) for listener in listeners))
        try:
            async with trio.open_nursery() as doors:
                for listener in listeners:
                    doors.start_soon(server.let_in, listener, connections)
        finally:
            server.stopping.set()


class _Server:
    def __init__(self, app: Any, limits: Limits) -> None:
        self.stopping = trio.Event()
        self._app = ASGIWrapper(app)
        self._limits = limits
        self._config = _config(limits)
        self._context = WorkerContext(max_requests=None)
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # The longest idle one first.

    async def shelter(
        self, *, task_status: trio.TaskStatus[trio.Nursery] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the connections out of reach of the cancellation that stops the server, for the grace."""
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as connections:
                task_status.started(connections)
                await self.stopping.wait()
                scope.deadline = trio.current_time() + self._limits.grace_s
                await self._context.terminated.set()
                for connection in self._idle:
                    connection.dismiss()

    async def let_in(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Welcome everybody who waits, turn by turn of the loop.

        trio lets in one a turn; under load, when turns are long, some of a crowd waited at the door for four seconds.
        """
        async with listener:
            with socket(fileno=os.dup(listener.socket.fileno())) as door:
                door.setblocking(False)
                while True:
                    await trio.lowlevel.wait_readable(door)
                    try:
                        for tcp in _accept_waiting(door):
                            connections.start_soon(self.welcome, tcp)
                    except OSError as error:
                        _log.warning("nobody can be let in now: %s", error)
                        await trio.sleep(NO_ROOM_PAUSE_S)

    async def welcome(self, tcp: socket) -> None:
        full = len(self._open) >= self._limits.connections_max and not self._make_room()
        try:
            wire = Wire(tcp)
        except OSError:  # Gone before it was greeted.
            tcp.close()
            return
        connection = Connection(
            self._app, self._config, self._context, wire, self._limits, self._note_idle
        )
        self._open.add(connection)
        try:
            await (connection.turn_away(_full()) if full else connection.run())
        except Exception:  # noqa: BLE001  # One client's trouble is not the other clients'.
            _log.exception("a connection failed")
        finally:
            self._open.discard(connection)
            self._idle.pop(connection, None)

    def _make_room(self) -> bool:
        for connection in self._idle:
            connection.dismiss()
            del self._idle[connection]
            return True
        return False

    def _note_idle(self, connection: Connection, idle: bool) -> None:
        if idle:
            self._idle[connection] = None
        else:
            self._idle.pop(connection, None)


def _accept_waiting(door: socket) -> Iterator[socket]:
    for _ in range(LET_IN_MAX):
        try:
            tcp, _address_of_client = door.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue  # Gone before it was let in.
        yield tcp


def _full() -> Problem:
    return Problem(503, "Too many connections are open; try again.", headers={"Retry-After": "1"})


def _config(limits: Limits) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = _log
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.head_bytes_max
    return config


async def _listen(bind: str) -> list[trio.SocketListener]:
    host, _, port = bind.rpartition(":")
    try:
        return await trio.open_tcp_listeners(int(port), host=host.strip("[]"), backlog=BACKLOG)
    except (OSError, ValueError) as error:
        raise ListenError(
            f"Cannot listen on {bind}: {error}. Free that address or choose another one."
        ) from error


def _address(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
