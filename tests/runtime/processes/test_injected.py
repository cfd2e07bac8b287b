"""Every action injected into a running instance under a load of orders: nothing is lost, nobody is charged twice."""

from collections.abc import Callable
from typing import Any

import httpx
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

# All at once would leave some unmet; these leave the instance running, or bring it back by supervision.
SURVIVED: list[list[dict[str, Any]]] = [
    [
        {"point": "shard.before-react", "action": "raise", "actor": "inventory", "times": 2},
        {"point": "shard.after-append", "action": "crash", "fact": "OrderReserved"},
        {"point": "gateway.after-request", "action": "drop", "fact": "Charge", "times": 3},
        {"point": "gateway.before-request", "action": "duplicate", "times": 3},
    ],
    [
        {"point": "wire.message", "action": "drop", "actor": "order"},
        {"point": "wire.message", "action": "duplicate", "actor": "payment"},
        {"point": "log.after-append", "action": "drop", "actor": "payment"},
        {"point": "shard.before-append", "action": "delay", "times": 20, "duration_s": 0.02},
        {"point": "http.before-answer", "action": "drop", "times": 3},
    ],
    [
        {"point": "gateway.before-request", "action": "hang", "for_s": 1.0},
        {"point": "tail.before-delivery", "action": "block", "duration_s": 0.3},
        {"point": "log.after-views", "action": "pause-broker", "duration_s": 0.5},
    ],
    [{"point": "log.before-append", "action": "kill-broker", "probability": 0.1, "seed": 1}],
]


async def inject(shop: Any, *faults: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=f"http://{shop.admin}", timeout=4) as admin:
        for fault in faults:
            answer = await admin.post("/faults", json=fault)
            assert answer.status_code == 201, answer.text


async def wait_fired(shop: Any, within_s: float = 10) -> None:
    """Wait until every armed fault has happened."""
    async with httpx.AsyncClient(base_url=f"http://{shop.admin}", timeout=4) as admin:
        with trio.fail_after(within_s):
            while True:
                armed = (await admin.get("/faults")).json()["armed"]
                if all(one["fired"] for one in armed):
                    return
                await trio.sleep(0.05)


async def test_no_injected_failure_loses_an_order_or_charges_one_twice(
    new_instance: Factory, open_client: Factory, audit: Factory
) -> None:
    shop = new_instance(FAULTS="on")
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client:
        await client.stock()
        with trio.fail_after(50):
            for faults in SURVIVED:
                await inject(shop, *faults)
                await client.load(60)
                await wait_fired(shop)
            await inject(shop, {"point": "shard.after-append", "action": "exit", "code": 3})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.load, 40)
                assert await shop.wait_ended(10) == 3
                shop.start()
            await client.wait_settled()
            levels = await client.wait_unreserved()
            await client.ask_again()
        assert audit(client.journal, shop.ledger, levels) == []
    fired = {line["action"] for line in shop.log if line["event"] == "fault_fired"}
    assert fired == {fault["action"] for faults in SURVIVED for fault in faults} | {"exit"}


@pytest.mark.parametrize(
    "fault",
    [
        {"point": "shard.after-append", "action": "swallow", "actor": "payment"},
        {"point": "shard.before-react", "action": "block", "duration_s": 60.0},
    ],
    ids=["swallow", "block"],
)
async def test_what_cannot_be_ended_ends_the_process_with_70_and_the_next_one_loses_nothing(
    new_instance: Factory, open_client: Factory, audit: Factory, fault: dict[str, Any]
) -> None:
    shop = new_instance(FAULTS="on")
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client:
        await client.stock()
        await inject(shop, fault)
        with trio.fail_after(50):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.load, 20)
                assert await shop.wait_ended(20) == 70
                shop.start()
            await client.wait_settled()
            levels = await client.wait_unreserved()
        assert audit(client.journal, shop.ledger, levels) == []


async def test_production_has_no_faults(new_instance: Factory) -> None:
    shop = new_instance(FAULTS="on", APP_ENV="production")
    shop.start()
    assert await shop.wait_ended(20) == 78
    assert "nobody breaks production by request" in shop.log_file.read_text()
