"""The wires: between one process and the broker or the payment provider, where messages get lost, late or doubled.

What has been sent arrives whether or not its sender still waits: a request that its client gave up, or that outlived
its process, is carried out all the same.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol, TypeVar

import outcome
import trio

from runtime.explore.nemesis import Nemesis
from runtime.explore.schedule import Fault, Kind, When
from runtime.gateway import NoReplyError, Provider
from runtime.gateway_contract import Reply, Request
from runtime.log import BrokerLostError, Entry, FencedError
from runtime.memory import MemoryLog, MemoryReader, MemoryStore

T = TypeVar("T")

CHANNEL_OF: Final = {
    "append": When.APPEND,
    "put_views": When.VIEWS,
    "claim_views": When.VIEWS,
    "put_snapshot": When.SNAPSHOT,
}  # Everything else only reads.
MISSED_S: Final = (
    10.0  # How long a reader takes to notice that a delivery was lost, and to ask again.
)
NO_ROUTE_S: Final = 0.05  # How soon one knows that nobody can be reached.


@dataclass(slots=True, eq=False)
class Errand:
    """One request on its way to the broker; carried out once it arrives."""

    what: str
    work: Callable[[], Any]
    nemesis: Nemesis
    done: trio.Event = field(default_factory=trio.Event)
    result: outcome.Value[Any] | outcome.Error | None = None
    is_given_up: bool = False

    def run(self) -> None:
        self.result = outcome.capture(self.work)
        self.done.set()
        error = self.result.error if isinstance(self.result, outcome.Error) else None
        if isinstance(error, FencedError):
            self.nemesis.seen[f"a fence refused {self.what}"] += 1
        if self.is_given_up and self.what == "append":
            came = "stored" if error is None else "refused"
            self.nemesis.seen[f"an append was {came} after its client had given up"] += 1


class Gate:
    """A place that can stand still. What arrives meanwhile passes, in order, once it is open again."""

    def __init__(self, onwards: Callable[[Errand], None]) -> None:
        self._onwards = onwards
        self._closings = 0
        self._opened = trio.Event()
        self._waiting: list[Errand] = []

    def submit(self, errand: Errand) -> None:
        if self._closings:
            self._waiting.append(errand)
        else:
            self._onwards(errand)

    async def wait_open(self) -> None:
        while self._closings:
            await self._opened.wait()

    async def close_for(self, closed_s: float) -> None:
        self._closings += 1
        try:
            await trio.sleep(closed_s)
        finally:
            self._closings -= 1
            if not self._closings:
                self._open()

    def _open(self) -> None:
        opened, self._opened = self._opened, trio.Event()
        opened.set()
        waiting, self._waiting = self._waiting, []
        for errand in waiting:
            self._onwards(errand)


class Surrounds(Protocol):
    """What the wires need of the world around them."""

    @property
    def nemesis(self) -> Nemesis: ...
    @property
    def nursery(self) -> trio.Nursery: ...
    @property
    def dice(self) -> Random: ...
    @property
    def latency_s(self) -> float: ...
    @property
    def broker(self) -> Gate: ...
    @property
    def line(self) -> "ProviderLine": ...


async def travel(world: Surrounds) -> None:
    if world.latency_s:
        await trio.sleep(world.dice.random() * world.latency_s)


class WiredLog(MemoryLog):
    """One process' connection to the broker."""

    def __init__(self, world: Surrounds, store: MemoryStore) -> None:
        super().__init__(store)
        self._world = world
        self.gate = Gate(world.broker.submit)
        self.is_cut = False
        """True once the process is dead: nothing more comes from it, and nothing reaches it."""

    async def carry(self, what: str, name: str, work: Callable[[], T]) -> T:  # noqa: ARG002
        world = self._world
        channel = CHANNEL_OF.get(what, When.READ)
        errand = Errand(what, work, world.nemesis)
        try:
            await travel(world)
            await self._send(errand, await self._pass(channel))
            await errand.done.wait()
            answer_fate = await self._pass(channel)
            if answer_fate is not None and answer_fate.kind is Kind.LATE:
                await trio.sleep(answer_fate.for_ms / 1000)
            await self.gate.wait_open()
            await travel(world)
        except BaseException:
            errand.is_given_up = True
            raise
        assert errand.result is not None
        result: T = errand.result.unwrap()
        if what == "get_snapshot" and result is not None:
            world.nemesis.seen["a shard began from a snapshot"] += 1
        return result

    async def _pass(self, channel: When) -> Fault | None:
        """Let one message pass; those that get lost end here."""
        fate = self._world.nemesis.count(channel)
        if self.is_cut:
            await trio.sleep_forever()
        match fate:
            case Fault(kind=Kind.LOSE):
                await trio.sleep_forever()  # Until the client's own time-out.
            case Fault(kind=Kind.RESET | Kind.ERROR):
                raise BrokerLostError("the connection was reset")
        return fate

    async def _send(self, errand: Errand, fate: Fault | None) -> None:
        match fate:
            case Fault(kind=Kind.LATE):
                self._world.nursery.start_soon(self._send_late, errand, fate.for_ms / 1000)
            case Fault(kind=Kind.TWICE):
                self.gate.submit(errand)
                self.gate.submit(Errand(f"a second {errand.what}", errand.work, errand.nemesis))
            case _:
                self.gate.submit(errand)

    async def _send_late(self, errand: Errand, delay_s: float) -> None:
        await trio.sleep(delay_s)
        self.gate.submit(errand)

    @asynccontextmanager
    async def read(self, after: int, subjects: Sequence[str]) -> AsyncIterator["WiredReader"]:  # type: ignore[override]
        async with super().read(after, subjects) as reader:
            yield WiredReader(reader, self, subjects)

    async def deliver(self, entries: Sequence[Entry], *, may_double: bool) -> Sequence[Entry]:
        fate = self._world.nemesis.count(When.DELIVERY)
        if self.is_cut:
            await trio.sleep_forever()
        match fate:
            case Fault(kind=Kind.LOSE):
                await trio.sleep(MISSED_S)
            case Fault(kind=Kind.RESET | Kind.ERROR):
                raise BrokerLostError("the connection was reset")
            case Fault(kind=Kind.LATE):
                await trio.sleep(fate.for_ms / 1000)
            case Fault(kind=Kind.TWICE) if may_double:
                seen = self._world.nemesis.seen
                seen["a record was delivered twice"] += 1
                seen["a record was delivered twice during a call"] += self._world.line.in_flight > 0
                entries = [entry for entry in entries for _ in range(2)]
        await self.gate.wait_open()
        await self._world.broker.wait_open()
        await travel(self._world)
        return entries


class WiredReader:
    """A reader at the end of a wire."""

    def __init__(self, reader: MemoryReader, log: WiredLog, subjects: Sequence[str]) -> None:
        self._reader, self._log = reader, log
        self.backlog = reader.backlog
        # The tail passes over what it has had. A recovery trusts the contract, which allows no copies.
        self._is_tail = any(subject.endswith(">") for subject in subjects)

    async def take(self) -> Sequence[Entry]:
        entries = await self._reader.take()
        return await self._log.deliver(entries, may_double=self._is_tail)


class ProviderLine:
    """The provider: what is down is down for every process."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.down_until_s = 0.0
        self.senders: dict[str, WiredProvider] = {}
        """Who sent a key last."""
        self.in_flight = 0


class WiredProvider:
    """One process' way to the payment provider."""

    def __init__(self, world: Surrounds, line: ProviderLine) -> None:
        self._world, self._line = world, line
        self.is_cut = False

    async def send(self, request: Request) -> Reply:
        self._note(request)
        self._line.in_flight += 1
        try:
            return await self._send(request)
        finally:
            self._line.in_flight -= 1

    async def _send(self, request: Request) -> Reply:
        await travel(self._world)
        fate = await self._pass()
        provider = self._line.provider
        match fate:
            case Fault(kind=Kind.LATE):
                reply = await self._send_late(request, fate.for_ms / 1000)
            case Fault(kind=Kind.TWICE):
                await provider.send(request)
                reply = await provider.send(request)
            case _:
                reply = await provider.send(request)
        try:
            fate = await self._pass()
            if fate is not None and fate.kind is Kind.LATE:
                await trio.sleep(fate.for_ms / 1000)
            await travel(self._world)
        except BaseException:
            lost = reply.status == 201 and request.path == "/charges"
            self._world.nemesis.seen["a charge was taken whose answer was lost"] += lost
            raise
        is_error = fate is not None and fate.kind is Kind.ERROR
        return Reply(500, b'{"code":"internal_error"}') if is_error else reply

    async def _pass(self) -> Fault | None:
        fate = self._world.nemesis.count(When.CALL)
        if self.is_cut:
            await trio.sleep_forever()
        if trio.current_time() < self._line.down_until_s:
            await trio.sleep(NO_ROUTE_S)
            raise NoReplyError("the provider cannot be reached")
        match fate:
            case Fault(kind=Kind.LOSE):
                await trio.sleep_forever()  # Until the gateway's own time-out.
            case Fault(kind=Kind.RESET):
                raise NoReplyError("the connection was reset")
        return fate

    async def _send_late(self, request: Request, delay_s: float) -> Reply:
        """Let the request arrive later, even at a time when nobody waits for its answer."""
        done, replies = trio.Event(), list[Reply]()

        async def arrive() -> None:
            await trio.sleep(delay_s)
            replies.append(await self._line.provider.send(request))
            done.set()

        self._world.nursery.start_soon(arrive)
        await done.wait()
        return replies[0]

    def _note(self, request: Request) -> None:
        if request.key:
            earlier = self._line.senders.get(request.key)
            self._line.senders[request.key] = self
            if earlier not in (None, self):
                self._world.nemesis.seen["a call was made again by another process"] += 1
