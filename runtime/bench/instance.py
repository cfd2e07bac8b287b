"""The measured process: `orders run` with a till instead of a payment provider, and one child more, the channel.

    python -m runtime.bench.instance PATH_OF_A_UNIX_SOCKET

Configured by the environment. It connects to the socket once it takes orders, says so, and ends when the load does.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import trio

from actors.actor import Outcome
from actors.order_state import TERMINAL, OrderState, OrderStatus
from messages.codec import decode
from messages.generated.orders.v1 import OrderCreated, StockCounted
from runtime import logs, tracing
from runtime.bench.frames import Frame, Frames, Kind, frame
from runtime.bench.goods import ON_HAND, SKUS, sku
from runtime.bench.parts import Profiler
from runtime.collector import tune_collector
from runtime.config import load
from runtime.desk import read_stock
from runtime.gateway_contract import Reply, Request
from runtime.log import Log
from runtime.mailbox import Ask
from runtime.system import NEVER_RESTART, System
from supervisors import ChildSpec, ChildStarted, Report, run

RECEIVE_BYTES = 256 << 10

_started_s = time.monotonic()


class Till:
    """A payment provider that takes every charge at once, or, while it is held, none. It remembers nothing."""

    def __init__(self) -> None:
        self.charges = 0
        self.opened = trio.Event()
        self.opened.set()

    async def send(self, request: Request) -> Reply:
        # As whatever comes by a network does: a start goes on meanwhile.
        await trio.lowlevel.checkpoint()
        if request.method == "GET":
            return Reply(200, b'{"charges":[]}')
        if not self.opened.is_set():
            await self.opened.wait()
        self.charges += 1
        return Reply(201, b'{"id":"ch_%d","status":"captured"}' % self.charges)


class Stored:
    """Times the objects that snapshots are made of, on their way into the log."""

    def __init__(self, log: Log) -> None:
        self._took_ms: list[float] = []
        self._sizes: list[int] = []
        self._put = log.put_snapshot
        log.put_snapshot = self.put  # type: ignore[method-assign]  # The product need not know that it is measured.

    async def put(self, name: str, data: bytes) -> None:
        started_s = time.perf_counter()
        await self._put(name, data)
        self._took_ms.append((time.perf_counter() - started_s) * 1e3)
        self._sizes.append(len(data))

    def tell(self) -> Mapping[str, float]:
        """About those since the last time."""
        told = {
            "snapshot_objects": len(self._sizes),
            "snapshot_mb": round(sum(self._sizes) / 1e6, 3),
            "snapshot_object_ms_max": round(max(self._took_ms, default=0), 1),
        }
        self._took_ms, self._sizes = [], []
        return told


class Counter:
    """Takes what comes over the channel, and tells what became of it: a child of the root, started last."""

    def __init__(self, system: System, till: Till, stored: Stored, socket_path: str) -> None:
        self._system, self._till, self._stored, self._path = system, till, stored, socket_path
        self._profiler = Profiler()
        self.broker_serving_s = 0.0
        """After the start of this module."""
        self._outbox = bytearray()
        self._filled = trio.Event()
        self._over: list[AbstractContextManager[None]] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        stream = await trio.open_unix_socket(self._path)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._tell, stream)
            task_status.started()
            self._say_answer(0, self._greeting())
            frames = Frames()
            while chunk := await stream.receive_some(RECEIVE_BYTES):
                for received in frames.feed(chunk):
                    await self._take(received)
            raise SystemExit(0)  # The load is gone.

    def _greeting(self) -> Any:
        assert self._system.embedded is not None
        return {
            "broker_pid": self._system.embedded.pid,
            "broker_serving_s": self.broker_serving_s,
            "taking_s_without_imports": time.monotonic() - _started_s,
        }

    # --- what comes in ---

    async def _take(self, received: Frame) -> None:
        match received:
            case Kind.ASK, number, payload:
                await self._place(number, payload, OrderStatus.CONFIRMED)
            case Kind.ASK_AND_LEAVE, number, payload:
                await self._place(number, payload, OrderStatus.RESERVED)
            case Kind.WATCH, number, payload:
                self._watch(number, payload.decode(), OrderStatus.CONFIRMED)
            case Kind.ECHO, number, payload:
                decode(OrderCreated, payload)
                self._say(Kind.DONE, number)
            case Kind.COMMAND, number, payload:
                command = msgspec.json.decode(payload)
                self._say_answer(number, await self._commands[command](self))

    async def _place(self, number: int, payload: bytes, goal: OrderStatus) -> None:
        created = decode(OrderCreated, payload)
        with self._system.tracer.start_order("place order") as span:
            ask = await self._system.shards.ask(
                "order", created.order_id, created, span.traceparent
            )
        self._watch(number, created.order_id, goal, ask)

    def _watch(self, number: int, order_id: str, goal: OrderStatus, ask: Ask | None = None) -> None:
        """Tell the load when an order is what it is meant to become. That the ask was answered is looked at then."""
        watch: AbstractContextManager[None]
        is_told = False

        def tell(state: OrderState) -> None:
            nonlocal is_told
            if is_told or (state.status is not goal and state.status not in TERMINAL):
                return
            is_told = True
            self._over.append(watch)
            refused = ask is not None and ask.answer and ask.answer.outcome is not Outcome.DONE
            if state.status is goal and not refused:
                self._say(Kind.DONE, number)
            else:
                self._say(Kind.FAILED, number, f"{order_id} is {state.status}".encode())

        watch = self._system.views.watching(order_id, tell)
        watch.__enter__()

    # --- commands ---

    async def _fill_shelves(self) -> None:
        for name in map(sku, range(SKUS)):
            ask = await self._system.shards.ask(
                "inventory", name, StockCounted(sku=name, on_hand=ON_HAND)
            )
        await ask.wait_answered()
        await trio.sleep(0.5)  # The other shards' answers.

    async def _count_sold(self) -> int:
        levels = await read_stock(self._system.log, self._system.shards.counts["inventory"])
        return sum(level["sold"] for level in levels.values())

    async def _hold_till(self) -> None:
        self._till.opened = trio.Event()

    async def _start_profiler(self) -> None:
        self._profiler.start()

    async def _stop_profiler(self) -> Mapping[str, float]:
        return self._profiler.stop()

    async def _tell_snapshots(self) -> Any:
        return self._stored.tell()

    _commands: ClassVar[Mapping[str, Callable[["Counter"], Any]]] = {
        "fill shelves": _fill_shelves,
        "count sold": _count_sold,
        "hold till": _hold_till,
        "tell snapshots": _tell_snapshots,
        "start profiler": _start_profiler,
        "stop profiler": _stop_profiler,
    }

    # --- what goes out ---

    def _say(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        self._outbox += frame(kind, number, payload)
        self._filled.set()

    def _say_answer(self, number: int, value: Any) -> None:
        self._say(Kind.ANSWER, number, msgspec.json.encode(value))

    async def _tell(self, stream: trio.SocketStream) -> None:
        """Write all that has gathered, at once."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            outbox, self._outbox = self._outbox, bytearray()
            over, self._over = self._over, []
            for watch in over:
                watch.__exit__(None, None, None)
            await stream.send_all(outbox)


def main(socket_path: str) -> int:
    config = load(os.environ, env_file=Path(os.devnull))
    logs.configure(config.log_level, config.log_format)
    tracer = tracing.start(config)
    till = Till()
    system = System(config, tracer, provider=till)
    counter = Counter(system, till, Stored(system.log), socket_path)

    def on_report(report: Report) -> None:
        if report.path == "nats-server" and isinstance(report, ChildStarted):
            counter.broker_serving_s = time.monotonic() - _started_s
        system.on_report(report)

    spec = system.spec()
    tune_collector()
    try:
        return run(
            replace(spec, children=(*spec.children, ChildSpec("channel", counter.run))),
            on_report=on_report,
            on_open=system.adopt,
            never_restart=NEVER_RESTART,
            grace_s=config.shutdown_grace_s,
        )
    finally:
        tracer.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
