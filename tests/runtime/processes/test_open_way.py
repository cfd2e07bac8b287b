"""Orders from anybody's producer, without any library of ours: plain NATS on a socket."""

import json
import sys
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

    async def publish(self, subject: str, payload: bytes, headers: bytes = b"") -> int:
        """Store a message; returns where it stands once the broker has it."""
        answer, _ = await self.request(subject, payload, headers)
        assert "seq" in json.loads(answer), answer
        return int(json.loads(answer)["seq"])

    async def request(
        self, subject: str, payload: bytes, headers: bytes = b""
    ) -> tuple[bytes, dict[str, str]]:
        """The answer's payload and headers."""
        head = b"NATS/1.0\r\n%b\r\n" % headers if headers else b""
        sizes = b"%d %d" % (len(head), len(head) + len(payload)) if head else b"%d" % len(payload)
        line = b"%b %b answers %b" % (b"HPUB" if head else b"PUB", subject.encode(), sizes)
        await self._stream.send_all(b"%b\r\n%b%b\r\n" % (line, head, payload))
        with trio.fail_after(5):
            while (words := (await self._line()).split())[0] not in (b"MSG", b"HMSG"):
                pass
            size = int(words[-1])
            headers_size = int(words[-2]) if words[0] == b"HMSG" else 0
            while len(self._seen) < size + 2:
                self._seen += await self._stream.receive_some()
        told = self._seen[:headers_size].decode(errors="replace")
        body, self._seen = self._seen[headers_size:size], self._seen[size + 2 :]
        pairs = (line.partition(":") for line in told.split("\r\n")[1:] if line)
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

    async def keep_newest_only(self) -> None:
        """Leave one message of each subject, and the stream's configuration as it was."""
        info, _ = await self.request("$JS.API.STREAM.INFO.ORDERS", b"")
        config = json.loads(info)["config"]
        # Nobody may purge it. A limit drops what is beyond it, though only one that is lowered.
        for most in (1_000_000, 1, config["max_msgs_per_subject"]):
            changed = json.dumps({**config, "max_msgs_per_subject": most}).encode()
            answer, _ = await self.request("$JS.API.STREAM.UPDATE.ORDERS", changed)
            assert "error" not in json.loads(answer), answer

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
    "huge": created("huge", customer_id="x" * 140_000),
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
            f"ORDER.dead.order.{shard_of(order_id, 2)}" for order_id in GARBAGE
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
        # It stays when the others go, so that they do not look as if they had expired unread.
        await wire.publish("ORDER.created.oldest", b"no order")
        await client.stock()
        await client.load(40)
        await client.wait_settled()
        await client.wait_unreserved()
        shop.terminate()
        assert await shop.wait_ended(25) == 0

        await wire.keep_newest_only()
        assert len(await wire.stored("ORDER.journal.>")) == 6

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


NONSENSE = (
    b"traceparent: \xff\xfe\r\ntraceparent: 00-0-0-0\r\n: no name\r\nno colon\r\n"
    b"Orders-Letter-Id: order.0.1.0\r\nOrders-Decision: dropped\r\nbaggage: "
    + b"x" * 9_000
    + b"\r\n"
)
ASTRAY = {
    "ORDER.created.a*b": created("a*b"),
    "ORDER.created.a>b": created("a>b"),
    "ORDER.created.caf\u00e9": created("caf\u00e9"),
    "ORDER.created.a.b.c.d": created("a.b.c.d"),
    "ORDER.created." + "x" * 2_000: created("x"),
    "ORDER.created": created("created"),
    "ORDER.craeted.o1": created("o1"),
    "ORDER.again.order.0": b"again",
    "ORDER.again.nobody": b"again",
    "ORDER.journal.nobody.0": b"a record of nobody",
    "ORDER.created.largest": b"\x00" * (8 * 1024 * 1024 - 10_000),
}


async def test_messages_astray_with_nonsense_for_headers_are_set_aside_once_each_on_a_real_broker(
    new_instance: Factory, open_client: Factory
) -> None:
    shop = new_instance()
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client, Wire.open(shop.nats_url) as wire:
        await client.stock()
        seqs = [
            await wire.publish(subject, payload, NONSENSE) for subject, payload in ASTRAY.items()
        ]
        await wire.publish("ORDER.created.good", created("good"), NONSENSE)
        await wire.publish("ORDER.dead.order.0", b"no letter", NONSENSE)
        assert (await _terminal(client, "good"))["status"] == "confirmed"
        with trio.fail_after(10):
            while len(buried := await _buried(wire)) < len(ASTRAY):  # noqa: ASYNC110  # The broker tells nobody.
                await trio.sleep(0.05)
        assert sorted(buried) == sorted(seqs)
    assert not [line for line in shop.log if line["event"] == "child_crashed"]


async def test_a_record_that_a_stranger_puts_on_a_journal_stops_its_shard_until_a_person_drops_its_letter(
    new_instance: Factory, open_client: Factory, own_nats_server: Any, provider: Any, audit: Factory
) -> None:
    shop = new_instance(NATS_URL=own_nats_server.url, PAYMENT_GATEWAY_URL=provider.url)
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client, Wire.open(own_nats_server.url) as wire:
        await client.stock()
        await client.load(20)
        records = await wire.stored("ORDER.journal.order.0")
        early = next(body for body, _ in records if len(body) > 200)
        seq = await wire.publish("ORDER.journal.order.0", early)
        refused = f"message {seq} on ORDER.journal.order.0 cannot be recovered over"
        with trio.fail_after(20):
            while refused not in shop.log_file.read_text():  # noqa: ASYNC110  # A file tells nobody.
                await trio.sleep(0.1)

        drop = [sys.executable, "-m", "runtime", "dead", "drop", "--all", "--reason", "not ours"]
        dropped = await trio.run_process(drop, env=shop.environ, capture_stderr=True)
        assert dropped.stderr.endswith(b": dropped: not ours\n")
        await shop.wait_ready()
        await client.load(20)
        await client.wait_settled()
        await client.ask_again(every=1)
        levels = await client.wait_unreserved()
        assert audit(client.journal, provider.ledger, levels) == []


async def _buried(wire: Wire) -> list[int]:
    """Where the messages stand that were set aside; a letter each."""
    letters = await wire.stored("ORDER.dead.>")
    ids = [
        headers.get("Orders-Letter-Id", "")
        for _, headers in letters
        if headers.get("Orders-Reason")
    ]
    assert len(ids) == len(set(ids))
    return [int(each.split(".")[2]) for each in ids]
