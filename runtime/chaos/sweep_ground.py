"""What a sweep stands on: one broker, one payment provider, a proxy before each, and one instance after another."""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio

from runtime.audit import Attempt, History, Mark, Op, Report, Told, audit
from runtime.chaos.conversation import Part
from runtime.chaos.http import JSON, Answer, Http, NoAnswerError
from runtime.chaos.http_frames import HttpConversation
from runtime.chaos.nats_frames import NatsConversation
from runtime.chaos.proxy import Passing, Proxy, Rule, forward
from runtime.chaos.zygote import Child, Zygote
from runtime.config import load as load_config
from runtime.embedded import EmbeddedServer
from runtime.log import Entry
from runtime.ports import free_port
from runtime.reading import open_broker, read_to_end
from runtime.simulator import Simulator
from runtime.simulator_http import serve as serve_simulator
from runtime.simulator_ledger import Ledger

STOCK: Final = {"hat": 1_000_000, "boot": 1_000_000, "rare": 1}
SHARDS: Final = {"ORDER_SHARDS": "1", "INVENTORY_SHARDS": "2", "PAYMENT_SHARDS": "1"}
# A step that can wait does so for 0.2 s, a view for 0.1 s.
QUIET_S: Final = 0.35
QUIET_WITHIN_S: Final = 20.0
SLOW_CHARGE_S: Final = 0.06  # Long enough for a cancellation to overtake it.
LOOK_AGAIN_S: Final = 0.01
# An instance looks at its streams every few seconds, and a link is pinged, whether there are orders or not.
_CLOCKWORK: Final = ("PING", "PONG", "$JS.API.STREAM.INFO.")


class Ground:
    """`rule` is asked about every frame between the instance, the broker and the provider, but for clockwork."""

    def __init__(self, directory: Path, zygote: Zygote, broker: EmbeddedServer, http: Http) -> None:
        self.broker = broker
        self.ledger = Ledger()
        self.rule: Rule = forward
        self.starts = 0
        self._started = trio.Event()
        self.journal: list[Attempt] = []
        self.marks: list[Mark] = []
        self.log_file = directory / "instance.log"
        self.instance: Child | None = None
        self._directory, self._zygote, self._http = directory, zygote, http
        self._public, self._admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(directory),
            "APP_ENV": "test",
            "LOG_FORMAT": "json",
            "INSTANCE_ID": "swept",
            "NATS_STORE_DIR": str(directory),
            "PAYMENT_CALL_TIMEOUT": "400ms",
            "HTTP_BIND": self._public,
            "ADMIN_BIND": self._admin,
            **SHARDS,
        }
        self._nats = Proxy(("127.0.0.1", broker.port), NatsConversation, rule=self._pass)
        self._gateway: Proxy
        self._last_frame_s = 0.0

    async def open(self, nursery: trio.Nursery) -> None:
        """Start everything but an instance."""
        simulator = Simulator(self.ledger, slow_s=SLOW_CHARGE_S)
        url = urlsplit(await nursery.start(serve_simulator, simulator))
        assert url.hostname is not None
        assert url.port is not None
        self._gateway = Proxy((url.hostname, url.port), HttpConversation, rule=self._pass)
        await nursery.start(self._nats.run)
        await nursery.start(self._gateway.run)

    async def start(self) -> None:
        """Start an instance; it takes orders a moment later, and hears nothing meant for the one before."""
        self._nats.cut_all()
        self._gateway.cut_all()
        urls = {
            "NATS_URL": f"nats://127.0.0.1:{self._nats.port}",
            "PAYMENT_GATEWAY_URL": f"http://127.0.0.1:{self._gateway.port}",
        }
        self.instance = await self._zygote.fork(
            self._environ | urls, self._directory, self.log_file
        )
        self.starts += 1
        started, self._started = self._started, trio.Event()
        started.set()

    async def wait_started(self, starts: int) -> None:
        """Wait until so many instances have been started."""
        while self.starts < starts:
            await self._started.wait()

    def kill(self) -> None:
        """End it with SIGKILL, from anywhere."""
        if self.instance is not None:
            self.instance.kill()

    async def wait_ended(self) -> None:
        assert self.instance is not None
        await self.instance.wait_ended()

    async def end(self) -> None:
        """Kill the instance, and wait until it is gone."""
        self.kill()
        with trio.CancelScope(shield=True):
            await self.wait_ended()

    async def insist(self, request: "Request") -> Answer:
        """Ask until there is a definite answer, as a careful client does, and keep a journal."""
        while True:
            started_s, at_ms = trio.current_time(), now_ms()
            answer = await self._ask(
                self._public, request.method, request.path, request.body, request.headers
            )
            took_ms = (trio.current_time() - started_s) * 1000
            self.journal.append(_attempt(request, answer, at_ms, took_ms))
            if answer is not None and answer.status < 500 and answer.status != 429:
                return answer
            await trio.sleep(LOOK_AGAIN_S)

    async def stock(self) -> dict[str, dict[str, int]]:
        """The levels, once nobody holds anything any more."""
        levels: dict[str, dict[str, int]] = {}
        with trio.move_on_after(QUIET_WITHIN_S):
            while not levels or any(level["reserved"] for level in levels.values()):
                answer = await self._ask(self._admin, "GET", "/stock")
                if answer is not None and answer.status == 200:
                    levels = answer.json
                await trio.sleep(LOOK_AGAIN_S)
        return levels

    async def fill_stock(self) -> None:
        answer = None
        while answer is None or answer.status != 204:
            await trio.sleep(LOOK_AGAIN_S)
            answer = await self._ask(self._admin, "PUT", "/stock", msgspec.json.encode(STOCK))

    async def wait_quiet(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait until nothing has been said for a while, or there is nothing to wait for any more."""
        with trio.move_on_after(QUIET_WITHIN_S):
            while trio.current_time() < self._last_frame_s + QUIET_S and not is_over():  # noqa: ASYNC110  # For the clock.
                await trio.sleep(LOOK_AGAIN_S)

    async def audit(self) -> Report:
        """End the instance, and hold the whole log against the journal of its clients and the provider's ledger."""
        await self.end()
        history = History({name.partition("_")[0].lower(): int(n) for name, n in SHARDS.items()})

        async def take(entries: Sequence[Entry]) -> None:
            history.add_all(entries)

        reader = {"NATS_URL": self.broker.url, "INSTANCE_ID": "auditor"}
        config = load_config(self._environ | reader, env_file=self._directory / "none")
        async with open_broker(config) as log:
            await read_to_end(log, ["ORDER.>"], take)
        return audit(
            history,
            journal=self.journal,
            ledger=self.ledger.lines,
            marks=self.marks,
            complete=True,
        )

    async def _ask(
        self,
        address: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
    ) -> Answer | None:
        """Ask once; None where nobody knows what came of it."""
        sent = [*(JSON if body else ()), *headers]
        try:
            return await self._http.ask(method, address, path, body, sent)
        except NoAnswerError:
            return None

    def _pass(self, passing: Passing) -> Any:
        if passing.part is Part.STATUS or passing.said.about.startswith(_CLOCKWORK):
            return forward(passing)
        self._last_frame_s = trio.current_time()
        return self.rule(passing)


@asynccontextmanager
async def open_ground(directory: Path, zygote: Zygote) -> AsyncIterator[Ground]:
    """A new ground with an instance that takes orders and a full store room."""
    directory.mkdir(parents=True)  # noqa: ASYNC240  # Once, and no slower than what follows.
    http = Http()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(http.aclose)
        nursery = await stack.enter_async_context(trio.open_nursery())
        broker = EmbeddedServer(directory / "broker")
        await nursery.start(broker.run)
        ground = Ground(directory, zygote, broker, http)
        stack.callback(nursery.cancel_scope.cancel)
        await ground.open(nursery)
        await ground.start()
        stack.push_async_callback(ground.end)
        await ground.fill_stock()
        await ground.wait_quiet()
        yield ground


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for, as HTTP has it and as the journal has it."""

    op: Op
    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def _attempt(request: Request, answer: Answer | None, at_ms: int, took_ms: float) -> Attempt:
    code = answer.status if answer is not None else 0
    told: dict[str, Any] = {}
    if answer is not None and code < 300:
        told = {
            key: answer.json[key] for key in ("order_id", "status", "version") if key in answer.json
        }
    outcome = Told.ACCEPTED if 200 <= code < 300 else Told.UNKNOWN
    if 400 <= code < 500 and code != 429:
        outcome = Told.REFUSED
    return Attempt(
        op=request.op,
        at_ms=at_ms,
        took_ms=took_ms,
        outcome=outcome,
        code=code,
        **{**request.fields, **told},
    )
