"""The stage that users' own tests get, with a shop on it."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import trio

from actors.actor import Outcome
from messages.generated.orders.v1 import CancelAsked, OrderCreated, OrderItem, StockCounted
from runtime.testing import Stage, faults, stage
from supervisors import SupervisorStopped

__all__ = ["faults", "stage"]


class Shop:
    """Customers of a stage, who see to it that the promise is kept."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def place(self, order_id: str, token: str = "tok_ok") -> None:
        await self._stage.ask("inventory", "hat", StockCounted(sku="hat", on_hand=100))
        answer = await self._stage.ask("order", order_id, order(order_id, token))
        assert answer.outcome is Outcome.DONE

    async def confirm(self, order_id: str) -> None:
        """Place an order, and hold what comes of it against the promise: one end, and charged exactly once."""
        with trio.fail_after(600):
            await self.place(order_id)
            view = await self._stage.wait_view(order_id, status="confirmed")
        assert [line["status"] for line in view["history"]].count("confirmed") == 1
        assert [line.amount_minor for line in self._stage.ledger.captures(order_id)] == [200]

    async def bury(self) -> None:
        """Let a fact fail until it is set aside: a letter is stored."""
        asked = CancelAsked(order_id="bad")
        self._stage.faults.inject("shard.before-react", "raise", order="bad", times=1000)
        answer = await self._stage.ask("order", "bad", asked)
        assert answer.outcome is Outcome.INVALID

    async def stop_and_start(self) -> None:
        """Stop a shard in good order, and start it again: it leaves a snapshot."""
        await self._stage.wait_running()
        supervisor = self._stage.supervisor.find("actors")
        with suppress(
            SupervisorStopped
        ):  # The process ended instead; the next one starts them all.
            await supervisor.stop_child("order.0")
            await supervisor.restart_child("order.0")

    async def live(self, order_id: str) -> None:
        """All that may happen to a shard, around one order."""
        await self.bury()
        await self.confirm(order_id)
        await self.stop_and_start()


def order(order_id: str, token: str = "tok_ok") -> OrderCreated:
    return OrderCreated(
        order_id=order_id,
        customer_id="c1",
        items=[OrderItem(sku="hat", quantity=2, unit_price_minor=100)],
        currency="GBP",
        total_minor=200,
        payment_token=token,
    )


@pytest.fixture
def shop(stage: Stage) -> Shop:
    return Shop(stage)


@pytest.fixture
def make_order() -> Callable[..., OrderCreated]:
    return order
