"""Orders of more lines than usual, where ORDER_LINES_MAX allows them, and the records that they make."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import Terms
from actors.actor import Outcome
from actors.order_check import LINES_LIMIT, LINES_MAX
from messages.codec import encode
from runtime import shard
from runtime.config import load
from runtime.memory import MemoryStore
from runtime.system import terms_of
from supervisors import ChildCrashed

SKUS = [f"{n:~>64}" for n in range(LINES_LIMIT)]  # As long as they may be.
BROKER_BYTES_MAX = 1 << 20  # What a nats-server takes when nobody has told it otherwise.


@pytest.fixture
async def shop(open_shop: Callable[[], Any]) -> AsyncIterator[Any]:
    """A shop that allows as many lines as any may, on a broker that takes as little as any does."""
    async with open_shop() as opened:
        opened.terms = Terms(order_lines_max=LINES_LIMIT)
        opened.store = MemoryStore(payload_bytes_max=BROKER_BYTES_MAX)
        await opened.start()
        await opened.count(**dict.fromkeys(SKUS, 100))
        yield opened


async def test_orders_of_the_most_lines_are_confirmed_and_their_records_fit_the_broker(
    shop: Any, autojump_clock: MockClock
) -> None:
    placed = {f"o{n}": shop.order(f"o{n}", **dict.fromkeys(SKUS, 1)) for n in range(10)}
    for order_id, order in placed.items():
        await shop.publish(order_id, encode(order))
    for order_id in placed:
        with trio.fail_after(600):
            view = await shop.wait_status(order_id, "confirmed")
        assert len(view["items"]) == LINES_LIMIT
    assert shop.letters() == []
    assert not any(isinstance(report, ChildCrashed) for report in shop.process.reports)
    records = [len(one.payload) for one in shop.store.entries if ".journal." in one.subject]
    assert BROKER_BYTES_MAX / 3 < max(records) < BROKER_BYTES_MAX


async def test_sales_that_together_make_too_large_a_record_are_taken_one_by_one_next_time(
    shop: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shard, "CHANGE_BYTES", -200
    )  # So that far too much is taken for one record.
    orders = 12
    skus = {f"o{n}": [f"{n:02}{sku[2:]}" for sku in SKUS] for n in range(orders)}
    for its_own in skus.values():
        await shop.count(**dict.fromkeys(its_own, 1))
    for order_id, its_own in skus.items():
        await shop.publish(order_id, encode(shop.order(order_id, **dict.fromkeys(its_own, 1))))
    for order_id in skus:
        await shop.wait_status(order_id, "confirmed")
    await trio.sleep(20)
    stocks = await shop.stocks()
    assert sum(stock.sold for stock in stocks.values()) == orders * LINES_LIMIT
    crashes = [one for one in shop.process.reports if isinstance(one, ChildCrashed)]
    # One or two in most runs; now and then the sales come apart by themselves.
    assert len(crashes) <= 2 * shop.counts["inventory"]


async def test_an_order_of_one_line_more_is_rejected(shop: Any, autojump_clock: MockClock) -> None:
    quantities = dict.fromkeys([*SKUS, "one more"], 1)
    answer = await shop.ask("order", "o1", shop.order("o1", **quantities))
    assert answer.outcome is Outcome.INVALID
    assert answer.detail == "1001 lines; 1 to 1000 are allowed"


def test_the_shop_says_how_many_lines_there_may_be() -> None:
    def terms(**environ: str) -> Terms:
        return terms_of(load(environ, env_file=Path(os.devnull)))

    assert terms().order_lines_max == LINES_MAX == 100
    assert terms(ORDER_LINES_MAX="500").order_lines_max == 500
