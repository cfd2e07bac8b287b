"""A search that cannot fail is worth nothing: bugs planted in the product, each found within a few seeds."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import msgspec
import pytest

from actors import inventory, payment
from actors.actor import Charge, Step
from runtime import gateway, shard
from runtime.explore import Fault, Kind, Outcome, When, draw, run_schedule, shrink
from runtime.memory import MemoryStore

SEEDS_MAX = 150
A_LATE_CALL = Fault(Kind.LATE, When.CALL, 5, for_ms=11_000)
"""The provider carries it out when the gateway has given up: few seeds have one by themselves."""

Patch = pytest.MonkeyPatch


def first_failure(invariants: set[str], fault: Fault | None = None) -> Outcome:
    """The first run that breaks one of these, each with this fault beside its own."""
    for seed in range(SEEDS_MAX):
        schedule = draw(seed)
        faults = schedule.faults if fault is None else (*schedule.faults, fault)
        outcome = run_schedule(replace(schedule, faults=faults))
        if invariants & {finding.invariant for finding in outcome.findings}:
            return outcome
    raise AssertionError(f"not found within {SEEDS_MAX} seeds")


def without_a_fence(patch: Patch) -> None:
    append = MemoryStore.append

    def anyhow(
        self: MemoryStore, subject: str, payload: bytes, expect: int | None, headers: Any
    ) -> int:
        return append(self, subject, payload, None, headers)

    patch.setattr(MemoryStore, "append", anyhow)


def with_a_new_key_for_each_attempt(patch: Patch) -> None:
    numbers = count(1)
    request = gateway.charge_request

    def anew(call: Charge) -> Any:
        return request(replace(call, key=f"{call.key}:{next(numbers)}"))

    patch.setattr(gateway, "charge_request", anew)


def with_a_reservation_released_twice(patch: Patch) -> None:
    give_up = inventory._give_up

    def twice(states: Any, order_id: str, *, sold: bool) -> Step:
        step = give_up(states, order_id, sold=sold)
        doubled = {
            key: msgspec.structs.replace(
                state, reserved=state.reserved - (states.get(key).reserved - state.reserved)
            )
            if isinstance(state, inventory.Stock)
            else state
            for key, state in step.states.items()
        }
        return replace(step, states=doubled)

    patch.setattr(inventory, "_give_up", twice)


def with_acting_before_the_append(patch: Patch) -> None:
    commit = shard.Shard._commit

    async def too_early(self: shard.Shard, group: Any) -> None:
        for ask, answer in group.answers:
            ask.resolve(answer)
        await commit(self, group)

    patch.setattr(shard.Shard, "_commit", too_early)


def with_calls_forgotten_at_a_restart(patch: Patch) -> None:
    patch.setattr(shard.Shard, "_resume", lambda self: None)


def with_an_unknown_charge_taken_for_none(patch: Patch) -> None:
    def give_up(self: Any, state: Any, now_ms: int) -> Step:
        refused = payment.PaymentRefused(order_id=state.order_id, code="unknown")
        return payment._end(state, refused)

    patch.setattr(payment.PaymentActor, "_charge_unknown", give_up)


PLANTED: Mapping[Callable[[Patch], None], tuple[set[str], Fault | None]] = {
    without_a_fence: ({"I5"}, None),
    with_a_new_key_for_each_attempt: ({"I2"}, A_LATE_CALL),
    with_a_reservation_released_twice: ({"I4"}, None),
    with_acting_before_the_append: ({"I1", "I7", "I8"}, None),
    with_calls_forgotten_at_a_restart: ({"I1"}, None),
    with_an_unknown_charge_taken_for_none: ({"I3"}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    outcome = first_failure(*PLANTED[plant])
    broken = sorted({finding.invariant for finding in outcome.findings})
    print(f"{plant.__name__}: seed {outcome.schedule.seed}, {broken}")


@pytest.mark.slow
def test_what_fails_is_cut_down_to_what_it_needs(monkeypatch: Patch) -> None:
    with_a_new_key_for_each_attempt(monkeypatch)
    found = first_failure({"I2"}, A_LATE_CALL)

    def fails(schedule: Any) -> bool:
        return any(finding.invariant == "I2" for finding in run_schedule(schedule).findings)

    small = shrink(found.schedule, fails)
    assert fails(small)
    assert len(small.orders) == 1
    assert len(small.faults) <= 2
    monkeypatch.undo()
    assert run_schedule(small).holds


def test_the_same_seed_passes_once_the_bug_is_gone(monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        with_a_reservation_released_twice(patch)
        found = first_failure({"I4"})
    assert run_schedule(draw(found.schedule.seed)).holds
