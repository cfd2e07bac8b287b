"""The public views: what is written, and what is read back meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.actor import NOTHING, Heard, Remains, State, States, Step, View
from runtime import views as module
from runtime.log import BrokerLostError, SupersededError
from runtime.memory import MemoryLog
from runtime.views import Views
from runtime.vitals import STALLED_AFTER_S


class Page(State, frozen=True):
    """Something to show, in some version; the last one is final."""

    version: int
    is_final: bool = False

    @property
    def remains(self) -> Remains | None:
        return Remains(0, 0) if self.is_final else None


class Author:
    """An actor that shows its pages."""

    name: ClassVar[str] = "author"
    hears: ClassVar[Mapping[Any, Any]] = {}
    states: ClassVar[Any] = Page
    view: ClassVar[View] = staticmethod(msgspec.structs.asdict)

    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        return NOTHING


class Recluse(Author):
    view: ClassVar[View] = None


class Press(MemoryLog):
    """A log that keeps what was printed, batch by batch, and may be out of order for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Mapping[str, int]] = []
        self.failures: list[Exception] = []
        self.takes_s = 0.0

    async def put_views(self, views: Mapping[str, bytes]) -> None:
        await trio.sleep(self.takes_s)
        if self.failures:
            raise self.failures.pop()
        await super().put_views(views)
        self.batches.append({key: msgspec.json.decode(v)["version"] for key, v in views.items()})


@pytest.fixture
def press() -> Press:
    return Press()


@pytest.fixture
def views(press: Press) -> Views:
    return Views(press)


def put(views: Views, key: str, version: int, *, is_final: bool = False) -> None:
    views.put(key, Author(), Page(version, is_final), "00-abc-def-01")


async def seen(views: Views, key: str) -> Any:
    view = await views.get(key)
    return None if view is None else msgspec.json.decode(view)["version"]


async def test_versions_in_between_are_not_written(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await nursery.start(views.run)
    put(views, "o1", 1)
    put(views, "o1", 2)
    put(views, "o2", 1, is_final=True)
    put(views, "o1", 3, is_final=True)
    await trio.sleep(10)
    assert press.batches == [{"o1": 3, "o2": 1}]


async def test_an_order_that_is_not_finished_is_written_all_the_same_a_second_later(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await nursery.start(views.run)
    for version in range(60):
        put(views, "o1", version)
        await trio.sleep(0.1)
    assert 3 <= len(press.batches) <= 6


async def test_whoever_asks_sees_the_newest_version_written_or_not(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    press.takes_s = 1
    await nursery.start(views.run)
    assert await seen(views, "o1") is None
    last = 0
    for version in range(1, 40):
        put(views, "o1", version, is_final=version % 3 == 0)
        for _ in range(3):
            assert await seen(views, "o1") == version >= last
            await trio.sleep(0.11)
        last = version
    await trio.sleep(10)
    assert await seen(views, "o1") == 39
    assert msgspec.json.decode(press.store.views["o1"]) == {
        "version": 39,
        "is_final": True,
        "trace_id": "abc",
    }


async def test_a_claim_that_has_expired_is_made_again(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await nursery.start(views.run)
    await trio.sleep(1)
    press.store.views_claim, press.store.views_claimer = press.store.views_claim + 1, None
    put(views, "o1", 1, is_final=True)
    await trio.sleep(10)
    assert press.batches == [{"o1": 1}]


async def test_a_claim_of_another_ends_the_writing(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def claim_and_order() -> None:
        await trio.sleep(1)
        await MemoryLog(press.store).claim_views()
        put(views, "o1", 1, is_final=True)

    nursery.start_soon(claim_and_order)
    with trio.fail_after(10), pytest.raises(SupersededError):
        await views.run()
    assert press.batches == []


async def test_what_is_stored_never_goes_back_even_when_writing_fails(
    views: Views, press: Press, autojump_clock: MockClock
) -> None:
    press.takes_s = 0.3
    press.failures = [BrokerLostError() for _ in range(3)]

    async def keep_writing() -> None:
        while True:
            try:
                await views.run()
            except BrokerLostError:
                await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_writing)
        for version in range(50):
            put(views, "o1", version, is_final=True)
            await trio.sleep(0.1)
            assert await seen(views, "o1") == version
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    stored = [batch["o1"] for batch in press.batches]
    assert stored == sorted(stored)
    assert stored[-1] == 49


async def test_a_writer_that_is_cancelled_leaves_its_versions_to_the_next(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    press.takes_s = 5
    put(views, "o1", 1, is_final=True)
    with trio.move_on_after(2):
        await views.run()
    assert await seen(views, "o1") == 1
    await nursery.start(views.run)
    await trio.sleep(10)
    assert press.batches == [{"o1": 1}]


async def test_a_large_pile_is_written_in_batches(
    views: Views,
    press: Press,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BATCH_MAX", 4)
    for number in range(10):
        put(views, f"o{number}", 1, is_final=True)
    await nursery.start(views.run)
    await trio.sleep(1)
    assert list(map(len, press.batches)) == [4, 4, 2]


async def test_waiting_for_what_was_put_does_not_wait_for_what_is_put_later(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    press.takes_s = 0.2
    await nursery.start(views.run)

    async def keep_putting() -> None:
        for version in range(10_000):
            put(views, f"o{version}", version)
            await trio.sleep(0.01)

    nursery.start_soon(keep_putting)
    await trio.sleep(1.05)
    due = list(views._waiting)
    with trio.fail_after(2):
        await views.wait_written()
    written: Sequence[str] = [key for batch in press.batches for key in batch]
    assert set(due) <= set(written)


async def test_waiting_for_what_was_put_lasts_until_all_of_it_is_stored(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    press.failures = [BrokerLostError()]
    put(views, "o1", 1)
    with pytest.raises(BrokerLostError):
        await views.run()
    assert press.batches == []
    await nursery.start(views.run)
    await views.wait_written()
    assert press.batches == [{"o1": 1}]
    await views.wait_written()


async def test_nobody_waits_for_views_that_nobody_writes(
    views: Views, autojump_clock: MockClock
) -> None:
    put(views, "o1", 1)
    with trio.fail_after(1), pytest.raises(BrokerLostError):
        await views.wait_written()


async def test_whoever_waits_hears_that_the_writer_has_failed(
    views: Views, press: Press, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    press.failures = [BrokerLostError()]
    put(views, "o1", 1)

    async def write_until_it_fails() -> None:
        with pytest.raises(BrokerLostError):
            await views.run()

    nursery.start_soon(write_until_it_fails)
    await trio.sleep(0.01)  # Less than the writer lingers.
    with trio.fail_after(5), pytest.raises(BrokerLostError):
        await views.wait_written()


async def test_who_watches_an_order_is_told_its_states_and_no_others(views: Views) -> None:
    told: list[Any] = []
    with views.watching("o1", told.append):
        put(views, "o1", 1)
        put(views, "o2", 2)
        put(views, "o1", 3)
    put(views, "o1", 4)
    assert [page.version for page in told] == [1, 3]
    assert views._watchers == {}


async def test_what_its_actor_does_not_show_is_not_kept(views: Views) -> None:
    views.put("o1", Recluse(), Page(1), "")
    assert await views.get("o1") is None
    await views.wait_written()


async def test_views_that_nobody_writes_are_seen_to_wait(
    views: Views, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    await trio.sleep(3600)
    assert views.vitals.stalled_s(trio.current_time()) is None  # There is nothing to write.
    put(views, "o1", 1)
    await trio.sleep(STALLED_AFTER_S)
    assert views.vitals.stalled_s(trio.current_time()) is None
    await trio.sleep(0.1)
    assert views.vitals.stalled_s(trio.current_time()) is not None
    await nursery.start(views.run)
    await trio.sleep(2)
    assert views.vitals.is_idle
