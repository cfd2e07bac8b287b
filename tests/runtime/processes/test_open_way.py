"""Orders from anybody's producer, without any library of ours: plain NATS on a socket."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
import trio

from messages.codec import encode
from messages.generated.orders.v1 import OrderCreated, OrderItem
from messages.routing import shard_of

Factory = Callable[..., Any]
pytestmark = pytest.mark.slow


class Wire:
    """A stranger's connection to the broker."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._seen = b""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        host, _, port = url.removeprefix("nats://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            wire = cls(stream)
            await wire._line()  # INFO
            hello = b'CONNECT {"verbose":false,"headers":true}\r\nSUB answers 1\r\n'
            await stream.send_all(hello)
            yield wire

    async def publish(self, subject: str, payload: bytes) -> None:
        """Store a message; returns once the broker has it."""
        answer, _ = await self.request(subject, payload)
        assert "seq" in json.loads(answer), answer

    async def request(self, subject: str, payload: bytes) -> tuple[bytes, dict[str, str]]:
        """The answer's payload and headers."""
        await self._stream.send_all(
            b"PUB %b answers %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)
        )
        with trio.fail_after(5):
            while (words := (await self._line()).split())[0] not in (b"MSG", b"HMSG"):
                pass
            size = int(words[-1])
            headers_size = int(words[-2]) if words[0] == b"HMSG" else 0
            while len(self._seen) < size + 2:
                self._seen += await self._stream.receive_some()
        head, body = self._seen[:headers_size].decode(), self._seen[headers_size:size]
        self._seen = self._seen[size + 2 :]
        pairs = (line.partition(":") for line in head.split("\r\n")[1:] if line)
        return body, {name: value.strip() for name, _, value in pairs}

    async def stored(self, subjects: str) -> list[tuple[bytes, dict[str, str]]]:
        """Everything on some subjects of the stream, oldest first."""
        found: list[tuple[bytes, dict[str, str]]] = []
        after = 0
        while True:
            wanted = {"seq": after + 1, "next_by_subj": subjects}
            body, headers = await self.request(
                "$JS.API.DIRECT.GET.ORDERS", json.dumps(wanted).encode()
            )
            if "Nats-Sequence" not in headers:
                return found
            after = int(headers["Nats-Sequence"])
            found.append((body, headers))

    async def _line(self) -> bytes:
        while b"\r\n" not in self._seen:
            self._seen += await self._stream.receive_some()
        line, _, self._seen = self._seen.partition(b"\r\n")
        return line


def created(order_id: str, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "order_id": order_id,
        "customer_id": "c1",
        "items": [OrderItem(sku="hat-1", quantity=2, unit_price_minor=250)],
        "currency": "GBP",
        "total_minor": 500,
        "payment_token": "tok_ok",
        **changes,
    }
    return encode(OrderCreated(**values))


GARBAGE: Mapping[str, bytes] = {
    "text": b'{"order_id": "text"}',
    "empty": b"",
    "short": created("short")[:-3],
    "noise": b"\xff" * 300,
    "another": created("elsewhere"),
    "huge": created("huge", customer_id="x" * 70_000),
    "no_order.id": created("no_order.id"),
}


async def test_orders_and_rubbish_from_strangers_meet_an_order_each_and_a_dead_letter_each(
    new_instance: Factory, open_client: Factory
) -> None:
    shop = new_instance()
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client, Wire.open(shop.nats_url) as wire:
        await client.stock()
        for number, (order_id, payload) in enumerate(GARBAGE.items()):
            await wire.publish(f"ORDER.created.{order_id}", payload)
            for _ in range(2):  # Anyone's producer may repeat itself.
                await wire.publish(f"ORDER.created.good{number}", created(f"good{number}"))
        await wire.publish("ORDER.created.wrong", created("wrong", total_minor=1))

        for number in range(len(GARBAGE)):
            assert (await _terminal(client, f"good{number}"))["status"] == "confirmed"
        assert (await _terminal(client, "wrong"))["reason"].startswith("invalid: total 1 ")
        for order_id in GARBAGE:
            assert (await client.insist("GET", f"/orders/{order_id}")).status_code == 404
        levels = await client.wait_unreserved()
        assert levels["hat-1"]["sold"] == 2 * len(GARBAGE)

        letters = await wire.stored("ORDER.dead.>")
        assert sorted(headers["Nats-Subject"] for _, headers in letters) == sorted(
            f"ORDER.dead.order.{shard_of(order_id, 4)}" for order_id in GARBAGE
        )
        assert all(headers["Orders-Reason"] for _, headers in letters)
    assert len(shop.ledger) == len(GARBAGE)
    assert not [line for line in shop.log if line["event"] == "child_crashed"]


async def test_after_an_orderly_stop_a_start_needs_the_snapshots_alone(
    new_instance: Factory, open_client: Factory, own_nats_server: Any, provider: Any, audit: Factory
) -> None:
    shop = new_instance(NATS_URL=own_nats_server.url, PAYMENT_GATEWAY_URL=provider.url)
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client, Wire.open(own_nats_server.url) as wire:
        await client.stock()
        await client.load(40)
        await client.wait_settled()
        await client.wait_unreserved()
        shop.terminate()
        assert await shop.wait_ended(25) == 0

        for actor in ("order", "inventory", "payment"):
            for shard in range(4):
                left = {"filter": f"ORDER.journal.{actor}.{shard}", "keep": 1}
                await wire.request("$JS.API.STREAM.PURGE.ORDERS", json.dumps(left).encode())
        assert len(await wire.stored("ORDER.journal.>")) == 12

        shop.start()
        await shop.wait_ready()
        await client.ask_again(every=1)
        levels = await client.stock_levels()
        assert audit(client.journal, provider.ledger, levels) == []


async def _terminal(client: Any, order_id: str) -> Any:
    with trio.fail_after(10):
        while True:
            answer = await client.insist("GET", f"/orders/{order_id}")
            if answer.status_code == 200 and answer.json()["version"]:
                view = answer.json()
                if view["status"] in ("confirmed", "rejected", "cancelled"):
                    return view
            await trio.sleep(0.05)
