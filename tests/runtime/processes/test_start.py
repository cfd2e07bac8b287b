"""What a process says, and with which code it ends, where it cannot start; and how it waits where it can."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio

CONFIG_FAULT = 78

Factory = Callable[..., Any]
pytestmark = pytest.mark.slow


async def test_every_fault_of_a_configuration_is_told_at_once(new_instance: Factory) -> None:
    shop = new_instance(
        ORDER_SHARDS="0", PAYMENT_CALL_TIMEOUT="5", NATS_URL="http://x", HTTP_BIN=""
    )
    shop.start()
    assert await shop.wait_ended(15) == CONFIG_FAULT
    said = shop.log_file.read_text()
    for name in ("ORDER_SHARDS", "PAYMENT_CALL_TIMEOUT", "NATS_URL", "HTTP_BIN"):
        assert name in said
    assert "Traceback" not in said


async def test_an_address_in_use_ends_the_process_with_one_clear_line(
    new_instance: Factory,
) -> None:
    shop = new_instance()
    host, port = shop.http.split(":")
    with socket.create_server((host, int(port))):
        shop.start()
        assert await shop.wait_ended(20) == CONFIG_FAULT
    last_words = shop.log[-1]
    assert (last_words["event"], last_words["code"]) == ("process_ending", CONFIG_FAULT)
    assert f"Cannot listen on {shop.http}" in last_words["reason"]


async def test_other_shard_counts_than_the_store_was_made_with_are_refused_by_name(
    new_instance: Factory,
) -> None:
    shop = new_instance()
    shop.start()
    await shop.wait_ready()
    shop.kill()
    shop.environ["ORDER_SHARDS"] = "5"
    shop.start()
    assert await shop.wait_ended(20) == CONFIG_FAULT
    assert "2 shards of order, not 5" in shop.log[-1]["reason"]


async def test_without_a_broker_it_stays_up_says_why_it_is_not_ready_and_starts_when_there_is_one(
    new_instance: Factory, open_client: Factory, own_nats_server: Any
) -> None:
    own_nats_server.kill()
    shop = new_instance(NATS_URL=own_nats_server.url)
    shop.start()
    await shop.wait_listening()
    async with open_client(shop) as client:
        health = await client.ask(shop, "GET", "/health")
        assert health.status_code == 503
        assert "not connected to NATS" in health.json()["reasons"]
        assert (await client.ask(shop, "GET", "/livez")).status_code == 200
        assert (await client.ask(shop, "GET", "/startupz")).status_code == 503
        own_nats_server.start()
        await shop.wait_ready()
        assert (await client.ask(shop, "GET", "/health")).status_code == 200
        assert (await client.ask(shop, "GET", "/startupz")).status_code == 200


async def test_whatever_the_broker_does_every_request_is_answered_in_time(
    new_instance: Factory, open_client: Factory, own_nats_server: Any
) -> None:
    shop = new_instance(NATS_URL=own_nats_server.url)
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client:
        await client.stock()
        await client.load(5)
        await client.wait_settled()
        own_nats_server.freeze()
        await _ask_for_everything(client, shop, new_key="while-frozen")
        own_nats_server.thaw()
        await shop.wait_ready()
        own_nats_server.kill()
        await _ask_for_everything(client, shop, new_key="while-away")
        own_nats_server.start()
        await client.load(5)
        await client.wait_settled()
        assert client.slowest_s < 2.5


async def _ask_for_everything(client: Any, shop: Any, new_key: str) -> None:
    """Ask for all that may need the broker, at the same time: nothing new is accepted, nobody is left waiting."""
    [known, *_] = client.journal.values()
    headers = {"Idempotency-Key": new_key, "Prefer": "wait=1"}
    statuses: dict[str, int] = {}

    async def ask(method: str, path: str, **more: Any) -> None:
        answer = await client.ask(shop, method, path, **more)
        assert answer is not None, f"{method} {path} got no answer"
        statuses[f"{method} {path}"] = answer.status_code

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ask("POST", "/orders", json=known.body, headers=headers))
        nursery.start_soon(ask, "GET", f"/orders/{known.order_id}")
        nursery.start_soon(ask, "GET", "/orders/unknown")
        nursery.start_soon(ask, "POST", f"/orders/{known.order_id}/cancel")
    cancelled = statuses.pop(f"POST /orders/{known.order_id}/cancel")
    assert cancelled in (200, 409, 503)  # A shard that still runs knows what became of it.
    assert set(statuses.values()) == {503}, statuses
