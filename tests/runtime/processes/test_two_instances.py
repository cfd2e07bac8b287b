"""Two instances on one broker: the newer takes over, and nothing is lost between them."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

Factory = Callable[..., Any]

# httpx leaves a generator to the garbage collector when a server dies while it is being written to.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:.*ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning"
    ),
]


async def test_of_two_instances_on_one_broker_the_newer_takes_over_and_the_older_says_so_and_ends(
    new_instance: Factory,
    open_client: Factory,
    audit: Factory,
    own_nats_server: Any,
    provider: Any,
) -> None:
    shared = {"NATS_URL": own_nats_server.url, "PAYMENT_GATEWAY_URL": provider.url}
    older = new_instance(INSTANCE_ID="older", **shared)
    newer = new_instance(INSTANCE_ID="newer", **shared)
    older.start()
    await older.wait_ready()
    async with open_client(older, newer) as client:
        await client.stock()
        with trio.fail_after(50):
            # The older one does not know what the newer accepts, until it has ended: no looking up.
            await client.load(400, when={150: newer.start}, looks_up=False)
            assert await older.wait_ended(10) == 78
            await client.wait_settled()
            levels = await client.wait_unreserved()
            await client.ask_again()
        assert audit(client.journal, provider.ledger, levels) == []
    last_words = older.log[-1]
    assert last_words["event"] == "process_ending"
    assert "Run one instance on a stream" in last_words["reason"]
