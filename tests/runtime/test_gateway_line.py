"""The client of the payment provider may be restarted under a call: the call is answered all the same, and once."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from random import Random

import pytest
import trio

from actors.actor import CallAnswered, CallOutcome, Charge
from runtime import simulator_http
from runtime.gateway import Gateway, HttpProvider, NoReplyError
from runtime.gateway_contract import Reply, Request
from runtime.gateway_line import Line
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger

CHARGE = Charge(key="k1", reference="o1", amount_minor=500, currency="GBP", token="tok_slow")


async def test_a_client_restarted_under_a_charge_costs_no_second_one(
    nursery: trio.Nursery, perform: Callable[..., Awaitable[CallAnswered]]
) -> None:
    ledger, line = Ledger(), Line()
    url = await nursery.start(simulator_http.serve, Simulator(ledger, slow_s=0.1))
    gateway = Gateway(line, call_timeout_s=5, pool_size=1, rng=Random(0))
    answers: list[CallAnswered] = []
    answered = trio.Event()

    async def charge() -> None:
        answers.append(await perform(gateway, "o1", CHARGE))
        answered.set()

    async with trio.open_nursery() as calls:
        async with aclosing(HttpProvider(url, connections_max=1)) as client:
            with line.leading_to(client):
                calls.start_soon(charge)
                await trio.sleep(0.05)
        with pytest.raises(NoReplyError):
            await line.send(Request("GET", "/charges"))
        async with aclosing(HttpProvider(url, connections_max=1)) as client:
            with line.leading_to(client):
                with trio.fail_after(5):
                    await answered.wait()
    assert answers[0].outcome is CallOutcome.CAPTURED
    assert [entry.kind for entry in ledger.lines] == ["capture"]


async def test_an_error_of_a_client_that_is_still_there_is_not_hidden() -> None:
    class Broken:
        async def send(self, request: Request) -> Reply:
            raise KeyError(request.path)

    line = Line()
    with line.leading_to(Broken()), pytest.raises(KeyError):
        await line.send(Request("GET", "/charges"))
