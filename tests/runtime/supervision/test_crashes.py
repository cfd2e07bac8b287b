"""What a crash leaves behind: facts that are taken again, and a span that says what happened."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import ACTORS
from actors.actor import Heard, States, Step
from actors.order import OrderActor
from runtime.config import load
from runtime.recall import Address
from runtime.system import System
from runtime.tracing import Tracer, start
from supervisors import ChildCrashed

NO_FILE = Path("there-is-no-such-file")


class Flaky(OrderActor):
    """Fails to hear `StockReserved` so many times."""

    failures_left = 0
    heard: tuple[str, ...] = ()

    def react(self, states: States, heard: Heard, now_ms: int) -> Step:
        kind = type(heard).__name__
        Flaky.heard = (*Flaky.heard, kind)
        if kind == "StockReserved" and Flaky.failures_left:
            Flaky.failures_left -= 1
            raise ValueError("not now")
        return super().react(states, heard, now_ms)


@pytest.fixture
async def flaky(shop: Any, monkeypatch: pytest.MonkeyPatch) -> type[Flaky]:
    monkeypatch.setitem(
        ACTORS, "order", lambda terms, _: Flaky(reservation_ttl_ms=terms.reservation_ttl_ms)
    )
    monkeypatch.setattr(Flaky, "heard", ())
    monkeypatch.setattr(Flaky, "failures_left", 0)
    await shop.process.stop()
    await shop.start()
    await shop.wait_running()
    return Flaky


async def test_s18_facts_at_a_crash_are_taken_again_from_the_last_commit(
    shop: Any, flaky: type[Flaky], autojump_clock: MockClock
) -> None:
    flaky.failures_left = 2
    await shop.place("o1", a=2)
    await shop.wait_status("o1", "confirmed")
    assert sum(isinstance(report, ChildCrashed) for report in shop.process.reports) == 2
    hears = ["OrderCreated", "StockReserved", "StockReserved", "StockReserved", "PaymentTaken"]
    assert list(flaky.heard) == hears, "not lost, not skipped, and not out of order"
    assert {count for (_, order), count in shop.said().items() if order == "o1"} == {1}
    assert shop.letters() == []


@pytest.mark.parametrize("failures", [1, 2, 3])
async def test_s18_each_crash_raises_the_count_of_attempts(
    shop: Any, flaky: type[Flaky], failures: int, autojump_clock: MockClock
) -> None:
    flaky.failures_left = failures
    await shop.place("o1")
    await trio.sleep(30)
    assert [letter.attempts for letter in shop.letters()] == ([3] if failures == 3 else [])


@pytest.fixture
def spans() -> Iterator[Any]:
    """A tracer, and what it has exported by the time one asks."""
    out = io.StringIO()
    tracer = start(load({"OTEL_TRACES_EXPORTER": "console"}, NO_FILE), out)

    def exported() -> list[dict[str, Any]]:
        tracer.close()
        return [json.loads(line) for line in out.getvalue().splitlines()]

    exported.tracer = tracer  # type: ignore[attr-defined]
    yield exported
    tracer.close()


async def test_s85_a_crash_is_an_error_on_the_span_of_the_fact_and_the_next_life_does_not_inherit_it(
    shop: Any, flaky: type[Flaky], spans: Any, autojump_clock: MockClock
) -> None:
    await _trace(shop, spans.tracer)
    flaky.failures_left = 1
    await shop.place("o1")
    await shop.wait_status("o1", "confirmed")
    await trio.sleep(1)
    exported = spans()
    failed, again = (span for span in exported if span["name"] == "process StockReserved")
    assert failed["status"] == {"status_code": "ERROR", "description": "ValueError: not now"}
    assert failed["attributes"]["error.type"] == "ValueError"
    assert again["status"]["status_code"] == "UNSET"
    assert failed["parent_id"] == again["parent_id"], "both hear what inventory sent"
    failed_id = failed["context"]["span_id"]
    assert [span["name"] for span in exported if span["parent_id"] == failed_id] == []


async def _trace(shop: Any, tracer: Tracer) -> None:
    """Let the shards' next incarnations use this tracer."""
    process = shop.process
    process._surroundings = replace(process._surroundings, tracer=tracer)
    for address in process.shards.addresses():
        process.crash(address)
        await trio.sleep(0.5)
    assert process.shard("order")._around.tracer is tracer
    assert Address("order", 0) in process.shards.running()


def test_orders_are_taken_once_all_that_they_lead_to_can_be_done() -> None:
    """Or an instance that is killed whenever it has begun to accept would accept more and more, and finish nothing."""
    (core,) = (child for child in System(load({}, NO_FILE)).spec().children if child.id == "core")
    (actors,) = (child for child in core.start.spec.children if child.id == "actors")
    assert [child.id for child in actors.start.spec.children] == ["payment", "inventory", "order"]
