"""The simulated provider over real HTTP on loopback."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio

from runtime import simulator_http
from runtime.simulator import Simulator
from runtime.simulator_http import BODY_BYTES_MAX
from runtime.simulator_ledger import Ledger

CHARGE = {"reference": "o1", "amount_minor": 1530, "currency": "GBP", "token": "tok_ok"}
KEY = {"Idempotency-Key": "k1"}


@asynccontextmanager
async def served(ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(simulator_http.serve, Simulator(ledger, hang_s=30))
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_the_contract_is_kept_over_http() -> None:
    async with served(Ledger()) as client:
        charged = await client.post("/charges", headers=KEY, json=CHARGE)
        listed = await client.get("/charges", params={"reference": "o1"})
        refund = {"charge_id": charged.json()["id"], "amount_minor": 1530}
        refunded = await client.post("/refunds", headers={"Idempotency-Key": "r1"}, json=refund)
        ledger = await client.get("/ledger")

    assert (charged.status_code, charged.json()["status"]) == (201, "captured")
    assert charged.headers["content-type"] == "application/json"
    assert [charge["id"] for charge in listed.json()["charges"]] == [charged.json()["id"]]
    assert refunded.status_code == 201
    assert [line["kind"] for line in ledger.json()["lines"]] == ["capture", "refund"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("POST", "/charges", {}, b"{}", 400),
        ("POST", "/charges", [("Idempotency-Key", "a"), ("Idempotency-Key", "b")], b"{}", 400),
        ("POST", "/charges", KEY, b"{}", 422),
        ("POST", "/charges", KEY, b" " * (BODY_BYTES_MAX + 1), 413),
        ("GET", "/charges", {}, b"", 422),
        ("PUT", "/charges", KEY, b"{}", 405),
        ("GET", "/charges/ch_1", {}, b"", 404),
        ("GET", "/", {}, b"", 404),
    ],
)
async def test_nonsense_gets_its_4xx(
    method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with served(Ledger()) as client:
        response = await client.request(method, path, headers=headers, content=body)

    assert response.status_code == status
    assert response.json()["code"]


async def test_one_key_at_the_same_time_makes_one_charge() -> None:
    ledger = Ledger()
    answers: list[str] = []

    async with served(ledger) as client:

        async def charge() -> None:
            response = await client.post("/charges", headers=KEY, json=CHARGE)
            answers.append(response.text)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(charge)

    assert len(ledger.lines) == 1
    assert len(set(answers)) == 1
    assert len(answers) == 8


HANGING = CHARGE | {"token": "tok_timeout_after_charge"}


async def test_a_caller_who_hangs_up_is_not_waited_for() -> None:
    ledger = Ledger()
    async with served(ledger) as client:
        idle = tasks_living()
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/charges", headers=KEY, json=HANGING, timeout=0.1)

        await until(lambda: tasks_living() <= idle)

    assert len(ledger.lines) == 1


def tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not true():  # noqa: ASYNC110  # Nothing announces that the last task is gone.
            await trio.sleep(0.005)


async def test_it_stops_at_once_though_an_answer_hangs() -> None:
    ledger = Ledger()
    with trio.fail_after(5):
        async with served(ledger) as client, trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.post, "/charges", headers=KEY, json=HANGING))
            await until(lambda: bool(ledger.lines))
            nursery.cancel_scope.cancel()


async def test_a_request_cut_short_moves_nothing_and_alarms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Ledger()
    async with served(ledger) as client:
        async with await trio.open_tcp_stream("127.0.0.1", client.base_url.port or 0) as stream:
            await stream.send_all(
                b"POST /charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k1\r\n"
                b"Content-Length: 500\r\n\r\n{"
            )
        assert (await client.get("/ledger")).json() == {"lines": []}

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
