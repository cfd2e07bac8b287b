"""A proxy that knows what passes through it: whole frames are forwarded, dropped, doubled, delayed, or cut off.

It rewrites nothing. What happens to a frame is its `rule`'s to say; what the way is like for all of them (latency,
bandwidth, silence) is its `line`'s. The brokers behind it run with `no_advertise`, lest clients walk round it.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

import structlog
import trio

from runtime.chaos.conversation import Conversation, FrameError, Part, Said, Toward

CHUNK_BYTES: Final = 64 << 10
UNDER_WAY_MAX: Final = 10_000  # Pieces that wait out their latency; the sender waits beyond.
CONNECT_S: Final = 5.0

_logger = structlog.get_logger("runtime.chaos.proxy")


@dataclass(frozen=True, slots=True)
class Passing:
    """One frame on its way; `connection` counts from 0."""

    said: Said
    toward: Toward
    connection: int

    @property
    def part(self) -> Part:
        return self.said.part

    def __str__(self) -> str:
        return f"{self.said.part} {self.said.about} {self.toward}"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a frame: so many copies, after a delay that holds up those behind it too."""

    copies: int = 1
    delay_s: float = 0.0
    cuts: bool = False
    """End the connection after that, both ways."""
    then: Callable[[], None] | None = None
    """Called once it has been written."""


FORWARD: Final = Fate()
DROP: Final = Fate(copies=0)
DUPLICATE: Final = Fate(copies=2)
CUT_BEFORE: Final = Fate(copies=0, cuts=True)
CUT_AFTER: Final = Fate(cuts=True)

Rule = Callable[[Passing], Fate]
"""Called for each frame as it comes in: be quick, and do not raise. It may do more than decide."""


def forward(_: Passing) -> Fate:
    return FORWARD


class EveryNth:
    """A rule: every n-th frame of one part meets a fate, the others pass. `fired` counts them."""

    def __init__(self, n: int, part: Part, fate: Fate) -> None:
        self.fired = 0
        self._n, self._part, self._fate = n, part, fate
        self._seen = 0

    def __call__(self, passing: Passing) -> Fate:
        if passing.part is not self._part:
            return FORWARD
        self._seen += 1
        if self._seen % self._n:
            return FORWARD
        self.fired += 1
        return self._fate


@dataclass(frozen=True, slots=True)
class Line:
    """What the way is like, each way: jitter is at most so much more or less, and never reorders."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = math.inf


class Proxy:
    """Stands before one server. `rule` and `line` may be replaced at any time; `run` it first."""

    def __init__(
        self,
        target: tuple[str, int],
        converse: Callable[[], Conversation],
        *,
        host: str = "127.0.0.1",
        rule: Rule = forward,
        rng: random.Random | None = None,
    ) -> None:
        self.target, self.host, self.rule = target, host, rule
        self.line = Line()
        self.port = 0
        """Where it listens, once it does."""
        self.is_silent = False
        self._converse = converse
        self._rng = rng or random.Random()  # noqa: S311  # Jitter keeps no secret.
        self._numbers = count()
        self._open: dict[int, _Connection] = {}
        self._speaks = trio.Event()
        self._speaks.set()

    async def run(
        self, *, port: int = 0, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Forward until cancelled; started with the port that it listens on."""
        listeners = await trio.open_tcp_listeners(port, host=self.host)
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started(self.port)
        await trio.serve_listeners(self._welcome, listeners)

    def hush(self) -> None:
        """Accept, keep what is open, and say nothing: as a peer does whose cable was pulled."""
        self.is_silent = True
        self._speaks = trio.Event()

    def speak(self) -> None:
        """Go on, with all that was held back."""
        self.is_silent = False
        self._speaks.set()

    def cut_all(self) -> int:
        """End every connection at once; return how many there were."""
        for connection in self._open.values():
            connection.cut()
        return len(self._open)

    def half_close(self, toward: Toward) -> int:
        """Tell that end of every connection that nothing more comes; the other way stays open."""
        for connection in self._open.values():
            connection.half_close(toward)
        return len(self._open)

    async def wait_speaking(self) -> None:
        await self._speaks.wait()

    def delay_s(self) -> float:
        """How long the next piece is under way."""
        line = self.line
        if not line.latency_s and not line.jitter_s:
            return 0.0
        return max(0.0, line.latency_s + self._rng.uniform(-line.jitter_s, line.jitter_s))

    async def _welcome(self, client: trio.SocketStream) -> None:
        await self.wait_speaking()
        server = None
        with trio.move_on_after(CONNECT_S), suppress(OSError):  # It is down, and so it looks.
            server = await trio.open_tcp_stream(*self.target)
        if server is None:
            await trio.aclose_forcefully(client)
            return
        number = next(self._numbers)
        connection = self._open[number] = _Connection(self, number, client, server)
        try:
            await connection.run(self._converse())
        finally:
            del self._open[number]


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is under way to one end, and is written when it is due."""

    due_s: float
    wire: bytes
    fate: Fate = FORWARD
    is_last: bool = False


class _Connection:
    """One client and its way to the server and back."""

    def __init__(
        self, proxy: Proxy, number: int, client: trio.SocketStream, server: trio.SocketStream
    ) -> None:
        self._proxy, self._number = proxy, number
        self._ends = {Toward.CLIENT: client, Toward.SERVER: server}
        self._scope = trio.CancelScope()
        self._due_s = dict.fromkeys(Toward, 0.0)
        self._ways = {toward: trio.open_memory_channel[_Piece](UNDER_WAY_MAX) for toward in Toward}

    async def run(self, conversation: Conversation) -> None:
        """Carry what is said until one end is gone, or the rule has it cut."""
        async with self._ends[Toward.CLIENT], self._ends[Toward.SERVER]:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for toward in Toward:
                        nursery.start_soon(self._read, toward, conversation)
                        nursery.start_soon(self._write, toward)

    def cut(self) -> None:
        self._scope.cancel()

    def half_close(self, toward: Toward) -> None:
        with suppress(trio.WouldBlock, trio.ClosedResourceError):  # It is over, or all but so.
            self._ways[toward][0].send_nowait(_Piece(self._due(toward), b"", is_last=True))

    async def _read(self, toward: Toward, conversation: Conversation) -> None:
        source = self._ends[Toward.CLIENT if toward is Toward.SERVER else Toward.SERVER]
        async with self._ways[toward][0] as way:
            with suppress(trio.BrokenResourceError):
                while chunk := await source.receive_some(CHUNK_BYTES):
                    try:
                        for piece in self._decide(toward, conversation.hear(toward, bytes(chunk))):
                            await way.send(piece)
                    except FrameError as error:
                        _logger.error("connection_cut", reason=str(error), toward=toward)  # noqa: TRY400  # The text says all.
                        break

    def _decide(self, toward: Toward, heard: list[Said]) -> Iterator[_Piece]:
        """Let the rule say what becomes of each; those that just go on, go on together."""
        plain: list[bytes] = []
        for said in heard:
            fate = self._proxy.rule(Passing(said, toward, self._number))
            if fate is FORWARD:
                plain.append(said.wire)
                continue
            if plain:
                yield _Piece(self._due(toward), b"".join(plain))
                plain = []
            yield _Piece(self._due(toward, fate.delay_s), said.wire * fate.copies, fate)
        if plain:
            yield _Piece(self._due(toward), b"".join(plain))

    def _due(self, toward: Toward, more_s: float = 0.0) -> float:
        due_s = trio.current_time() + self._proxy.delay_s() + more_s
        self._due_s[toward] = max(self._due_s[toward], due_s)
        return self._due_s[toward]

    async def _write(self, toward: Toward) -> None:
        sink = self._ends[toward]
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for piece in self._ways[toward][1]:
                await trio.sleep_until(piece.due_s)
                await trio.sleep(len(piece.wire) / self._proxy.line.bytes_per_s)
                await self._proxy.wait_speaking()
                if piece.wire:
                    await sink.send_all(piece.wire)
                if piece.fate.then is not None:
                    piece.fate.then()
                if piece.fate.cuts:
                    break
                if piece.is_last:
                    await sink.send_eof()
                    await trio.sleep_forever()  # The other way goes on, and ends the connection.
        self._scope.cancel()
