"""An instance on a cluster of three brokers, which lose their leader, their majority, and come back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.chaos.brokers import Brokers, Ground
from runtime.chaos.host import LOOPBACK
from runtime.chaos.http import Http

Factory = Callable[..., Any]

# httpx leaves a generator to the garbage collector when a server dies while it is being written to.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:.*ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning"
    ),
]

OUTAGE_S = 3.0  # A leader that is left alone answers on for a while, though it stores nothing.
CUSTOMERS = 4
ANSWERED_WITHIN_S = 3.5  # Two seconds, and a busy machine; one that hangs is given up after four.


@pytest.fixture
async def brokers(tmp_path: Path) -> Any:
    """Three of them, not started yet."""
    grounds = [Ground(LOOPBACK, tmp_path / f"store-{number}") for number in range(3)]
    http = Http()
    brokers = Brokers(grounds, tmp_path, http)
    yield brokers
    await brokers.kill()
    await http.aclose()


async def test_a_cluster_loses_its_leader_and_its_majority_and_no_order(
    new_instance: Factory, open_client: Factory, audit: Factory, brokers: Brokers, provider: Any
) -> None:
    instance = new_instance(
        NATS_URL=",".join(brokers.urls), STREAM_REPLICAS="3", PAYMENT_GATEWAY_URL=provider.url
    )
    instance.start()
    await instance.wait_listening()  # It waits for a cluster that is not there yet.
    brokers.start()
    await instance.wait_ready(60)

    async with open_client(instance) as client:
        await client.stock()
        with trio.fail_after(120):  # Of a machine that has other things to do; 15 are usual.
            leader = await brokers.wait_leader()
            await client.load(60, when={20: lambda: leader.process.signal(9)})

            await leave_one(brokers)
            await accepts_nothing(instance, client)
            await brokers.heal()
            await instance.wait_ready(60)
            await client.load(30)
            await client.wait_settled()
            levels = await client.wait_unreserved()
        assert audit(client.journal, provider.ledger, levels) == []
    instance.terminate()
    assert await instance.wait_ended(15) == 0


async def leave_one(brokers: Brokers) -> None:
    """Take the majority away, the leader of the log not included: it is slow to notice."""
    for broker in await brokers.followers():
        await broker.kill()


async def accepts_nothing(instance: Any, client: Any) -> None:
    """While this lasts every order is answered with 503, and in time."""
    client.slowest_s = 0.0

    async def ask(customer: int) -> None:
        while True:
            answer = await client.ask(
                instance, "POST", "/orders", json=ORDER, headers=key(customer)
            )
            assert answer is not None
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
            refused.add(customer)
            await trio.sleep(0.2)

    refused: set[int] = set()
    with trio.move_on_after(OUTAGE_S):
        async with trio.open_nursery() as nursery:
            for customer in range(CUSTOMERS):
                nursery.start_soon(ask, customer)
    assert len(refused) == CUSTOMERS
    assert client.slowest_s < ANSWERED_WITHIN_S


def key(customer: int) -> dict[str, str]:
    return {"Idempotency-Key": f"unaccepted-{customer}"}


ORDER = {
    "customer_id": "1",
    "currency": "GBP",
    "payment_token": "tok_ok",
    "items": [{"sku": "scarce", "quantity": 1_000, "unit_price_minor": 1}],
}
