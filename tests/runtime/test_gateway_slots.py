"""Bad calls must not hold up good ones: late replies, repetitions, and a provider that is out of reach."""

from collections import Counter
from contextlib import closing
from dataclasses import replace
from random import Random

import pytest
import trio
import trio.testing

from actors.actor import CallAnswered, CallOutcome, Charge
from runtime.gateway import PATIENCE, Gateway
from runtime.gateway_calls import IN_A_ROW_MAX, Calls
from runtime.gateway_contract import NoReplyError, Reply, Request
from runtime.gateway_slots import (
    FIRSTS_IN_A_ROW,
    LATE_MAX,
    PROBE_EVERY_S,
    UNCLEAR_MAX,
)
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger
from runtime.tracing import Tracer

CALL_TIMEOUT_S = 10
POOL = 2


def charge(number: int, token: str = "tok_ok") -> Charge:
    return Charge(f"o{number}:charge", f"o{number}", 100, "GBP", token)


class Outside:
    """A provider that can be away, refusing or silent, and counts what arrives there; a reply takes `takes_s`."""

    def __init__(self, *, takes_s: float = 0.0) -> None:
        self.is_away = self.is_silent = False
        self.arrived: list[Request] = []
        self.under_way = self.most_under_way = 0
        self._takes_s = takes_s
        self._simulator = Simulator(Ledger())

    async def send(self, request: Request) -> Reply:
        self.arrived.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.is_away:
                raise NoReplyError("ConnectError")
            if self.is_silent:
                await trio.sleep_forever()
            await trio.sleep(self._takes_s)
            return await self._simulator.send(request)
        finally:
            self.under_way -= 1


class Shop:
    """Calls by the number of their order, and what came of them, and when."""

    def __init__(self, nursery: trio.Nursery, outside: Outside, *, pool_size: int = POOL) -> None:
        self.outside = outside
        self.gateway = Gateway(
            outside, call_timeout_s=CALL_TIMEOUT_S, pool_size=pool_size, rng=Random(1)
        )
        self.answers: dict[str, CallAnswered] = {}
        self.calls = Calls(nursery, self.gateway, Tracer(), self._hear)

    def call(self, *charges: Charge) -> None:
        for one in charges:
            self.calls.issue(one.reference, one)

    def _hear(self, answered: CallAnswered) -> None:
        self.answers[answered.key] = answered

    @property
    def outcomes(self) -> Counter[CallOutcome]:
        return Counter(answer.outcome for answer in self.answers.values())


async def test_calls_that_hang_do_not_hold_up_the_others(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    shop = Shop(nursery, Outside())
    hanging, good = range(4 * POOL), range(100, 150)

    shop.call(*(charge(number, "tok_timeout_after_charge") for number in hanging))
    await trio.testing.wait_all_tasks_blocked()
    shop.call(*(charge(number) for number in good))
    await trio.sleep(CALL_TIMEOUT_S - 1)

    assert set(shop.answers) == {f"o{number}" for number in good}
    await trio.sleep(CALL_TIMEOUT_S * 2)
    assert shop.outcomes == {CallOutcome.CAPTURED: len(hanging) + len(good)}


async def test_late_replies_are_waited_for_by_a_bounded_number(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    many = LATE_MAX // 2
    shop = Shop(nursery, Outside(), pool_size=many)

    shop.call(*(charge(number, "tok_timeout_after_charge") for number in range(4 * many)))
    await trio.sleep(CALL_TIMEOUT_S * 20)

    assert shop.outcomes == {CallOutcome.CAPTURED: 4 * many}
    assert shop.outside.most_under_way == LATE_MAX + many


async def test_a_first_request_goes_before_repetitions_and_these_have_every_fourth_place(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    shop = Shop(nursery, Outside(takes_s=0.1), pool_size=1)
    number_of_each = 8

    shop.call(charge(99))
    await trio.testing.wait_all_tasks_blocked()
    shop.call(*(replace(charge(number), again=True) for number in range(number_of_each)))
    await trio.testing.wait_all_tasks_blocked()
    shop.call(*(charge(100 + number) for number in range(number_of_each)))
    await trio.sleep(60)

    # A repetition asks first, so one of it is a GET and a POST.
    turns = "".join("r" if request.method == "GET" else "f" for request in shop.outside.arrived)
    turns = turns.replace("rf", "r")
    assert turns == ("f" * FIRSTS_IN_A_ROW + "r") * 3 + "r" * (number_of_each - 3)


async def test_a_call_whose_first_request_was_unclear_comes_after_three_first_requests(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    shop = Shop(nursery, Outside(takes_s=0.1), pool_size=1)

    shop.call(charge(0, "tok_flaky"), *(charge(number) for number in range(1, 20)))
    await trio.sleep(5)

    asked = [request.method for request in shop.outside.arrived].index("GET")
    assert FIRSTS_IN_A_ROW <= asked <= 2 * FIRSTS_IN_A_ROW


@pytest.mark.parametrize("trouble", ["is_away", "is_silent"])
async def test_a_provider_out_of_reach_is_asked_once_a_second_and_found_again_within_one(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, trouble: str
) -> None:
    shop = Shop(nursery, Outside())
    setattr(shop.outside, trouble, True)
    shop.call(*(charge(number) for number in range(200)))
    await trio.sleep(25)
    asked = len(shop.outside.arrived)
    await trio.sleep(4)
    probes = len(shop.outside.arrived) - asked
    assert 3 <= probes <= 5

    setattr(shop.outside, trouble, False)
    late = charge(1000)
    shop.call(late)
    await trio.sleep(PROBE_EVERY_S + 0.1)

    assert shop.answers[late.reference].outcome is CallOutcome.CAPTURED
    assert len(shop.answers) > 100


async def test_while_it_is_away_calls_are_answered_as_unknown_in_time(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """An actor waits for the answer with all else: a deadline, or a cancellation."""
    shop = Shop(nursery, Outside())
    shop.outside.is_away = True

    shop.call(*(charge(number) for number in range(100)))
    await trio.sleep(PATIENCE * CALL_TIMEOUT_S * 2 + 10)

    assert shop.outcomes == {CallOutcome.UNKNOWN: 100}
    details = Counter(answer.detail for answer in shop.answers.values())
    assert details.most_common(1)[0][0] == "the provider is out of reach: ConnectError"
    asked_for_s = PATIENCE * CALL_TIMEOUT_S + 1
    assert len(shop.outside.arrived) <= UNCLEAR_MAX + POOL + asked_for_s / PROBE_EVERY_S


async def test_a_few_bad_cards_in_a_row_do_not_put_the_provider_out_of_reach(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    shop = Shop(nursery, Outside(), pool_size=UNCLEAR_MAX)

    shop.call(*(charge(number, "tok_flaky") for number in range(UNCLEAR_MAX - 1)))
    await trio.testing.wait_all_tasks_blocked()
    shop.call(charge(100))
    await trio.sleep(0.001)

    assert shop.answers["o100"].outcome is CallOutcome.CAPTURED


async def test_a_shard_that_ends_leaves_its_places_and_its_turns_to_the_others(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    shop = Shop(nursery, Outside(takes_s=1), pool_size=1)

    async def shard() -> None:
        async with trio.open_nursery() as its_own:
            with closing(Calls(its_own, shop.gateway, Tracer(), shop.calls.end)) as calls:
                calls.issue("ends", charge(0))
                calls.issue("waits", charge(0))
                await trio.sleep_forever()

    for number in range(1, 11):  # Which of its tasks hears first that it is over is left to chance.
        with trio.move_on_after(0.1):
            await shard()
        shop.call(charge(number))
        await trio.sleep(1)

    assert [request.key for request in shop.outside.arrived[1::2]] == [
        f"o{number}:charge" for number in range(1, 11)
    ]


async def test_a_cancelled_shard_that_still_waits_for_its_last_append_keeps_no_place(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    shop = Shop(nursery, Outside(takes_s=1), pool_size=1)

    async def shard() -> None:
        async with trio.open_nursery() as its_own:
            with closing(Calls(its_own, shop.gateway, Tracer(), shop.calls.end)) as calls:
                calls.issue("ends", charge(0))
                calls.issue("waits", charge(0))
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(10)

    async with trio.open_nursery() as dying:
        dying.start_soon(shard)
        await trio.sleep(0.1)
        dying.cancel_scope.cancel()
        shop.call(charge(1))
        with trio.CancelScope(shield=True):
            await trio.sleep(1.1)
        assert shop.outcomes == {CallOutcome.CAPTURED: 1}


async def test_many_calls_wait_without_a_task_each_and_each_place_goes_to_the_next_at_once(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    shop = Shop(nursery, Outside(takes_s=0.1))
    many = 1_000

    shop.call(*(charge(number) for number in range(many)))
    await trio.testing.wait_all_tasks_blocked()
    assert len(nursery.child_tasks) <= POOL + 2  # One that watches the time, one of the test.
    await trio.sleep(0.1 * many / POOL + 0.01)

    assert shop.outcomes == {CallOutcome.CAPTURED: many}
    assert [request.key for request in shop.outside.arrived] == [
        f"o{number}:charge" for number in range(many)
    ]


async def test_a_provider_that_answers_without_waiting_leaves_the_loop_to_others(
    nursery: trio.Nursery,
) -> None:
    class AtOnce:
        async def send(self, request: Request) -> Reply:
            return Reply(201, b'{"id": "ch_1", "status": "captured"}')

    many = 50 * IN_A_ROW_MAX
    answers: list[CallAnswered] = []
    calls = Calls(
        nursery, Gateway(AtOnce(), call_timeout_s=1, pool_size=1), Tracer(), answers.append
    )

    for number in range(many):
        calls.issue(f"o{number}", charge(number))
    turns = 0
    while len(answers) < many:
        await trio.lowlevel.checkpoint()
        turns += 1

    assert turns >= many / IN_A_ROW_MAX
