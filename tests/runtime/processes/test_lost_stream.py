"""A stream that is deleted or replaced while an instance runs, or while none does: loud, and closed."""

from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
import trio

from runtime.bridge import Address, Bridge
from runtime.jetstream_api import Api

Factory = Callable[..., Any]

pytestmark = pytest.mark.slow

ORDER = {
    "customer_id": "1",
    "currency": "GBP",
    "payment_token": "tok_ok",
    "items": [{"sku": "hat", "quantity": 1, "unit_price_minor": 500}],
}


async def test_a_log_made_anew_under_a_running_instance_ends_it_and_no_other_starts_on_it(
    new_instance: Factory, own_nats_server: Any, provider: Any, nursery: trio.Nursery
) -> None:
    shared = {"NATS_URL": own_nats_server.url, "PAYMENT_GATEWAY_URL": provider.url}
    instance, other = new_instance(**shared), new_instance(**shared)
    instance.start()
    await instance.wait_ready()
    headers = {"Idempotency-Key": "k1", "Prefer": "wait=5"}
    async with httpx.AsyncClient(base_url=instance.url) as http:
        assert (await http.post("/orders", json=ORDER, headers=headers)).status_code == 201

    bridge = Bridge(Address([own_nats_server.url]))
    await nursery.start(bridge.run)
    await bridge.wait_connected()
    api = Api(bridge)
    config = (await api.call("STREAM.INFO.ORDERS"))["config"]
    await api.call("STREAM.DELETE.ORDERS")
    await api.call("STREAM.CREATE.ORDERS", config)

    assert await instance.wait_ended(10) == 78
    assert "replaced under way" in last_words(instance)
    other.start()
    assert await other.wait_ended(20) == 78
    assert "ORDERS is empty" in last_words(other)
    state = (await api.call("STREAM.INFO.ORDERS"))["state"]
    assert state["messages"] == 0, msgspec.json.encode(state)


def last_words(instance: Any) -> str:
    [ending] = [line for line in instance.log if line["event"] == "process_ending"]
    return str(ending["reason"])
