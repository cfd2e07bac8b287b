"""What a trace viewer would show of one order: everything that happened, in one piece."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Factory = Callable[..., Any]
Span = dict[str, Any]
pytestmark = pytest.mark.slow

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CALLER_TRACE, CALLER_SPAN = CALLER.split("-")[1:3]
HOPS = (
    "OrderOpened",
    "StockReserved",
    "OrderReserved",
    "PaymentTaken",
    "OrderConfirmed",
)
BODY = {
    "customer_id": "c1",
    "currency": "GBP",
    "items": [
        {"sku": f"hat-{number}", "quantity": 1, "unit_price_minor": 500} for number in range(6)
    ],
    "payment_token": "tok_ok",
}


def spans_of(file: Path, trace_id: str) -> dict[str, Span]:
    """The spans of one trace by their id, ids as plain hex."""
    spans = [json.loads(line) for line in file.read_text().splitlines()]
    return {
        span["context"]["span_id"].removeprefix("0x"): span
        for span in spans
        if span["context"]["trace_id"].removeprefix("0x") == trace_id
    }


def parent_of(span: Span) -> str:
    return (span["parent_id"] or "").removeprefix("0x")


def draw(spans: dict[str, Span], parent: str, depth: int = 0) -> list[str]:
    """The trace as a tree, a line a span, children in the order in which they began."""
    children = {key: span for key, span in spans.items() if parent_of(span) == parent}
    lines = []
    for key, span in sorted(children.items(), key=lambda item: item[1]["start_time"]):
        actor = span["attributes"].get("actor", "")
        lines.append(f"{'  ' * depth}{span['name']}  {actor}".rstrip())
        lines += draw(spans, key, depth + 1)
    return lines


async def test_one_order_is_one_connected_trace_with_both_ends_of_every_hop(
    new_instance: Factory, open_client: Factory, tmp_path: Path
) -> None:
    file = tmp_path / "spans.jsonl"
    shop = new_instance(OTEL_TRACES_EXPORTER="console", ORDERS_TRACE_FILE=str(file))
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client:
        await client.stock()
        headers = {"Idempotency-Key": "k", "Prefer": "wait=10", "traceparent": CALLER}
        answer = await client.ask(shop, "POST", "/orders", json=BODY, headers=headers)
        assert (answer.status_code, answer.json()["trace_id"]) == (201, CALLER_TRACE)
        await client.wait_unreserved()
    shop.terminate()
    assert await shop.wait_ended(25) == 0

    spans = spans_of(file, CALLER_TRACE)
    drawn = draw(spans, CALLER_SPAN)
    print(*drawn, sep="\n")
    assert len(drawn) == len(spans), "every span hangs together with the caller's"
    for message in HOPS:
        sent = {key for key, span in spans.items() if span["name"] == f"send {message}"}
        heard = [span for span in spans.values() if span["name"] == f"process {message}"]
        assert sent
        assert sent == {parent_of(span) for span in heard}, message
        assert all(span["kind"] == "SpanKind.CONSUMER" for span in heard)
    assert {spans[key]["kind"] for key in spans if spans[key]["name"].startswith("send ")} == {
        "SpanKind.PRODUCER"
    }
    assert all(span["status"]["status_code"] != "ERROR" for span in spans.values())
    [charge] = [span for span in spans.values() if span["name"] == "payment Charge"]
    assert charge["kind"] == "SpanKind.CLIENT"
    assert charge["attributes"]["payment.outcome"] == "captured"
    assert spans[parent_of(charge)]["name"] == "process OrderReserved"


async def test_an_order_keeps_its_trace_over_the_death_of_its_process(
    new_instance: Factory, open_client: Factory, tmp_path: Path
) -> None:
    file = tmp_path / "spans.jsonl"
    shop = new_instance(OTEL_TRACES_EXPORTER="console", ORDERS_TRACE_FILE=str(file))
    shop.start()
    await shop.wait_ready()
    async with open_client(shop) as client:
        await client.stock()
        promise = await client.place("k", BODY | {"payment_token": "tok_timeout_after_charge"})
        before = (await client.insist("GET", f"/orders/{promise.order_id}")).json()
        shop.kill()
        assert before["status"] not in ("confirmed", "rejected", "cancelled")
        file.unlink(missing_ok=True)  # What was written so far proves nothing about the rest.
        shop.start()
        await client.wait_settled()
        assert promise.view["status"] == "confirmed"
        assert promise.view["trace_id"] == before["trace_id"]
        await client.wait_unreserved()
    shop.terminate()
    assert await shop.wait_ended(25) == 0
    names = {span["name"] for span in spans_of(file, before["trace_id"]).values()}
    assert {"send PaymentTaken", "process PaymentTaken", "process OrderConfirmed"} <= names
