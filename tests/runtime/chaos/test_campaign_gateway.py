"""The provider of a campaign: what it books is what it should; what one hears of it is what it is told to say."""

from random import Random

import msgspec
import pytest
import trio

from runtime.chaos.gateway_process import HANG_S, ForgetfulLedger, Troubled
from runtime.gateway_contract import Reply, Request
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger


class Clock:
    now_ms = 0


class Provider:
    """One in trouble, and the ledger that it keeps."""

    def __init__(self) -> None:
        self.kept, self.clock = Ledger(), Clock()
        memory = ForgetfulLedger(self.kept, lambda: self.clock.now_ms)
        simulator = Simulator(memory, now_ms=lambda: self.clock.now_ms)
        self._troubled = Troubled(simulator, memory, Random(1))

    async def behave(self, **trouble: float) -> Reply:
        body = msgspec.json.encode(trouble)
        return await self._troubled.send(Request("PUT", "/trouble", body=body))

    async def charge(self, key: str = "k") -> Reply:
        body = {"reference": "o1", "amount_minor": 5, "currency": "GBP", "token": "tok_ok"}
        request = Request("POST", "/charges", key=key, body=msgspec.json.encode(body))
        return await self._troubled.send(request)

    async def happened(self) -> dict[str, int]:
        told = await self._troubled.send(Request("GET", "/trouble"))
        return dict(msgspec.json.decode(told.body)["happened"])


@pytest.fixture
def provider() -> Provider:
    return Provider()


async def test_one_that_fails_has_charged_all_the_same_and_only_once(provider: Provider) -> None:
    await provider.behave(fails=1.0)
    assert (await provider.charge()).status == 500
    assert (await provider.charge()).status == 500
    assert len(provider.kept.lines) == 1
    assert (await provider.happened())["fails"] == 2


async def test_one_that_hangs_has_charged_and_says_nothing(
    provider: Provider, autojump_clock: trio.testing.MockClock
) -> None:
    await provider.behave(hangs=1.0)
    with trio.move_on_after(HANG_S / 2) as waited:
        await provider.charge()
    assert waited.cancelled_caught
    assert len(provider.kept.lines) == 1


async def test_one_that_refuses_charges_nothing(provider: Provider) -> None:
    await provider.behave(refuses=1.0)
    assert (await provider.charge()).status == 503
    assert not provider.kept.lines


async def test_one_that_is_slow_answers_well_in_the_end(
    provider: Provider, autojump_clock: trio.testing.MockClock
) -> None:
    await provider.behave(delay_s=3.0)
    began_s = trio.current_time()
    assert (await provider.charge()).status == 201
    assert trio.current_time() - began_s == pytest.approx(3.0)


async def test_one_that_forgets_keys_charges_anew_once_they_are_old(provider: Provider) -> None:
    await provider.behave(forgets_s=2.0)
    await provider.charge()
    provider.clock.now_ms = 1_900
    await provider.charge()
    assert len(provider.kept.lines) == 1
    provider.clock.now_ms = 2_100
    await provider.charge()
    captures = provider._troubled._memory.captures("o1")
    assert len(captures) == 2


async def test_one_that_is_well_again_is_well(provider: Provider) -> None:
    await provider.behave(fails=1.0)
    await provider.behave()
    assert (await provider.charge()).status == 201


async def test_trouble_that_nobody_knows_is_refused(provider: Provider) -> None:
    assert (await provider.behave(explodes=1.0)).status == 422
