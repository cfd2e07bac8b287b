"""Every crash point of the shards' loop: wherever a process, a shard or an answer is lost, the history is the same.

One fixed scenario runs on the memory log. Every moment at which something may be lost is counted: before and after each
append, read, snapshot, view, and call to the payment provider. Then it runs once for each moment and each kind of loss.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.actor import Outcome
from actors.order_state import TERMINAL
from runtime import shard, tail
from runtime.gateway import NoReplyError, Provider
from runtime.gateway_contract import Reply, Request
from runtime.log import BrokerLostError, Entry
from runtime.memory import MemoryLog, MemoryReader, MemoryStore

ORDERS: Mapping[str, Mapping[str, Any]] = {
    "ok": {"a": 2, "b": 1},
    "declined": {"token": "tok_declined", "a": 1},
    "out-of-stock": {"a": 3, "c": 2},
    "cancelled": {"token": "tok_slow", "a": 5},
    "timeout": {"token": "tok_timeout_after_charge", "b": 4},
    "flaky": {"token": "tok_flaky", "a": 1, "b": 1},
}
OPEN_WAY = "open-way"  # Comes in by ORDER.created, where nobody asks twice.
STOCK = {"a": 100, "b": 100, "c": 1}
MOMENTS_MIN = 190
PATIENCE_S = 120.0

Moment = Callable[[str], Awaitable[None]]


class MortalLog(MemoryLog):
    """A connection that lets `moment` happen on either side of everything that is asked of the broker."""

    def __init__(self, store: MemoryStore, moment: Moment) -> None:
        super().__init__(store)
        self._moment = moment
        self.before_append = lambda subject, _: moment(f"before append {subject}")
        self.after_append = lambda subject, _: moment(f"after append {subject}")

    async def last(self, subject: str) -> Entry | None:
        async with self._around(f"last {subject}"):
            return await super().last(subject)

    async def get_snapshot(self, name: str) -> bytes | None:
        async with self._around(f"get_snapshot {name}"):
            return await super().get_snapshot(name)

    async def put_snapshot(self, name: str, data: bytes) -> None:
        async with self._around(f"put_snapshot {name}"):
            await super().put_snapshot(name, data)

    async def put_views(self, views: Mapping[str, bytes]) -> None:
        async with self._around("put_views"):
            await super().put_views(views)

    @asynccontextmanager
    async def read(self, after: int, subjects: Sequence[str]) -> AsyncIterator[MemoryReader]:
        await self._moment(f"before read {subjects[0]}")
        async with super().read(after, subjects) as reader:
            yield MortalReader(reader, self._moment, subjects[0])  # type: ignore[misc]  # As good as one.

    @asynccontextmanager
    async def _around(self, what: str) -> AsyncIterator[None]:
        await self._moment(f"before {what}")
        yield
        await self._moment(f"after {what}")


class MortalReader:
    def __init__(self, reader: MemoryReader, moment: Moment, subject: str) -> None:
        self._reader, self._moment, self._subject = reader, moment, subject

    async def take(self) -> Sequence[Entry]:
        entries = await self._reader.take()
        await self._moment(f"after take {self._subject}")
        return entries


class MortalProvider:
    """The way to the provider and back."""

    def __init__(self, provider: Provider, moment: Moment) -> None:
        self._provider, self._moment = provider, moment
        self.is_cut = False

    async def send(self, request: Request) -> Reply:
        await self._pass(f"before {request.method} {request.path}")
        reply = await self._provider.send(request)
        await self._pass(f"after {request.method} {request.path}")
        return reply

    async def _pass(self, what: str) -> None:
        if self.is_cut:
            await trio.sleep_forever()
        await self._moment(what)


class Performance:
    """The scenario, once, with a loss at the moments whose numbers are in `losses`."""

    def __init__(self, shop: Any, loss: str, losses: Sequence[int]) -> None:
        self.shop, self._loss, self._losses = shop, loss, losses
        self.moments: list[str] = []
        self._provider: MortalProvider
        self._is_counting = True
        self._nursery: trio.Nursery

    async def run(self) -> Mapping[str, Any]:
        """What became of each order, as its view says."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._keep_running)
            await trio.testing.wait_all_tasks_blocked()
            await self.shop.count(**STOCK)
            answers: dict[str, Any] = {}
            async with trio.open_nursery() as customers:
                for order_id in ORDERS:
                    customers.start_soon(self._visit, order_id, answers)
                await self.shop.publish(OPEN_WAY, bytes(self.shop.order(OPEN_WAY, b=1)))
            views = {o: await self.shop.wait_status(o, *TERMINAL) for o in (*ORDERS, OPEN_WAY)}
            self._is_counting = False
            await trio.sleep(10)
            await self.shop.wait_running()
            await self._audit(views, answers)
            nursery.cancel_scope.cancel()
        return views

    async def _visit(self, order_id: str, answers: dict[str, Any]) -> None:
        await self.shop.place(order_id, **ORDERS[order_id])
        if order_id == "cancelled":
            await self.shop.wait_status(order_id, "reserved", *TERMINAL)
            answers[order_id] = await self.shop.cancel(order_id)

    # --- losses ---

    async def _keep_running(self) -> None:
        """A process after another, as a platform keeps them."""
        while True:
            self._provider = MortalProvider(self.shop.simulator, self._moment)
            log = MortalLog(self.shop.store, self._moment)
            await self.shop.start(log=log, provider=self._provider)
            await self.shop.process.ended.wait()
            await trio.sleep(0.3)

    async def _moment(self, what: str) -> None:
        if not self._is_counting:
            return
        self.moments.append(what)
        if len(self.moments) in self._losses:
            await self._lose(what)

    async def _lose(self, what: str) -> None:
        process = self.shop.process
        match self._loss:
            case "message":
                is_call = " /" in what
                raise NoReplyError(what) if is_call else BrokerLostError(what)
            case "shards":
                for address in process.shards.running():
                    process.crash(address)
            case "stop":
                self._nursery.start_soon(process.stop)
            case "kill":
                self._provider.is_cut = True
                process.kill()
                await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    # --- what must be so, whatever was lost ---

    async def _audit(self, views: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
        shop = self.shop
        assert shop.process.error is None
        said = shop.said()
        confirmed = [o for o, view in views.items() if view["status"] == "confirmed"]
        for order_id, view in views.items():
            due_minor = view["total"]["minor"] if order_id in confirmed else 0
            assert shop.taken_minor(order_id) == due_minor, order_id
            assert said["OrderOpened", order_id] == 1
            assert said["OrderConfirmed", order_id] == (order_id in confirmed)
            assert said["OrderReserved", order_id] == (order_id != "out-of-stock")
        self._audit_cancel(views["cancelled"]["status"], answers["cancelled"])
        for sku, stock in (await shop.stocks()).items():
            sold = sum(ORDERS.get(o, {"b": 1}).get(sku, 0) for o in confirmed)
            assert (stock.on_hand + stock.sold, stock.reserved, stock.sold) == (STOCK[sku], 0, sold)
        assert shop.letters() == []
        for address in shop.process.shards.addresses():
            running = shop.process.shard(address.actor, address.shard)._memory
            alone = await shop.recalled(address.actor, address.shard, snapshots=False)
            recalled = await shop.recalled(address.actor, address.shard)
            assert running.live == recalled.live == alone.live
            assert len(running.archive) == len(recalled.archive) == len(alone.archive)
            if address.actor == "payment":
                assert running.live == {}

    def _audit_cancel(self, status: str, answer: Any) -> None:
        """A cancel that a crash delayed may come too late. Then it has been said."""
        assert (status, answer.outcome) in {
            ("cancelled", Outcome.DONE),
            ("confirmed", Outcome.TOO_LATE),
        }


Play = Callable[..., tuple[Mapping[str, Any], list[str]]]


@pytest.fixture
def play(open_shop: Any, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)

    def play(loss: str = "", *losses: int) -> tuple[Mapping[str, Any], list[str]]:
        trio._core._run._r.seed(0)  # Moment 17 of one run is moment 17 of the next.
        moments: list[str] = []

        async def main() -> Mapping[str, Any]:
            nonlocal moments
            async with open_shop() as shop:
                played = Performance(shop, loss, losses)
                moments = played.moments
                with trio.fail_after(PATIENCE_S):
                    return await played.run()

        try:
            return trio.run(main, clock=MockClock(autojump_threshold=0)), moments
        except BaseException as error:
            error.add_note(f"{loss} lost at {[(n, moments[n - 1 : n]) for n in losses]}")
            raise

    return play


def test_without_a_loss_the_scenario_ends_as_it_should(play: Play) -> None:
    views, _ = play()
    assert {o: v["status"] for o, v in views.items()} == {
        "ok": "confirmed",
        "declined": "rejected",
        "out-of-stock": "rejected",
        "cancelled": "cancelled",
        "timeout": "confirmed",
        "flaky": "confirmed",
        OPEN_WAY: "confirmed",
    }


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small groups, a snapshot every few records, a tail that has to go back: more can be lost in between."""
    monkeypatch.setattr(shard, "GROUP_FACTS_MAX", 2)
    monkeypatch.setattr(shard, "SNAPSHOT_RECORDS", 3)
    monkeypatch.setattr(tail, "WINDOW_FACTS", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("cramped")
@pytest.mark.parametrize(
    ("loss", "first", "step"),
    [
        ("message", 1, 2),
        ("message", 2, 2),
        ("kill", 1, 2),
        ("kill", 2, 2),
        ("shards", 1, 3),  # Both end like one of the above, so a third of the moments is enough.
        ("stop", 2, 3),
    ],
)
def test_whatever_is_lost_at_any_moment_the_history_is_the_same(
    play: Play, loss: str, first: int, step: int
) -> None:
    undisturbed, moments = play()
    assert len(moments) >= MOMENTS_MIN
    for moment in range(first, len(moments) + 1, step):
        views, _ = play(loss, moment)
        assert stories(views) == stories(undisturbed), moments[moment - 1]
    print(f"{loss}: lost at every {step} of {len(moments)} moments, from {first}")


@pytest.mark.slow
@pytest.mark.usefixtures("cramped")
@pytest.mark.parametrize("apart", [2, 5, 11])
def test_what_is_lost_again_during_the_recovery_changes_nothing_either(
    play: Play, apart: int
) -> None:
    undisturbed, moments = play()
    for moment in range(apart, len(moments), 25):
        views, _ = play("kill", moment, moment + apart, moment + 3 * apart)
        assert stories(views) == stories(undisturbed), moments[moment - 1]


def stories(views: Mapping[str, Any]) -> Mapping[str, Any]:
    """What clients may rely on. How a cancel ends depends on when it comes, so it is audited instead."""
    return {
        order_id: (
            [(line["event"], line["status"]) for line in view["history"]],
            {**view, "history": None, "reservation": None, "trace_id": None},
        )
        for order_id, view in views.items()
        if order_id != "cancelled"
    }
