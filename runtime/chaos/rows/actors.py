"""Rows about actors: crashed by every kind of message that they hear, and hung in every way that there is."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from actors import ACTORS, Place, Terms
from actors.order_state import TERMINAL, OrderStatus
from runtime.chaos.gateway_process import Trouble
from runtime.chaos.http import NoAnswerError
from runtime.chaos.instance import EXIT_HUNG
from runtime.chaos.process import wait_for
from runtime.chaos.row import NotFiredError, Options, Row, Setting, Strike, this_machine
from runtime.chaos.stage import Stage

MET_WITHIN_S = 50.0
RATE_MAX = 6.0  # With such short terms a backlog would expire, all of it, before it is served.
OUTAGE_S = 20.0
TERMS = {"PAYMENT_DEADLINE": "4s", "RESERVATION_TTL": "8s"}  # Short: every message has to come up.

DETECTED_WITHIN_S = 10.0
ENDED_WITHIN_S = 15.0
MACHINE_S = 6.0  # What a busy machine may add to these.

PAIRS = [
    (actor, fact.__name__)
    for actor, make in ACTORS.items()
    for fact in make(Terms(), Place(0, 1)).hears
]
"""Each actor with each kind of message that it hears."""


@asynccontextmanager
async def with_short_terms(options: Options) -> AsyncIterator[Setting]:
    async with this_machine(options) as setting:
        yield replace(setting, environ={**setting.environ, **TERMS})


# --- F3: crashed by every message ---


async def crash_by_every_message(stage: Stage) -> None:
    """Arm one crash after the other; a message that does not come up by itself is brought about."""
    stage.load.rate = min(stage.load.rate, RATE_MAX)
    for number in range(stage.planned):
        actor, fact = PAIRS[number % len(PAIRS)]
        async with stage.fault(f"{actor} crashes as it hears {fact}") as fault:
            await _crash(stage, actor, fact)
            fault.struck()
    await _calm(stage)
    await _retry_parked(stage)


async def _crash(stage: Stage, actor: str, fact: str) -> None:
    """Wait until the crash has happened; what brings its message about goes on until then.

    Raises:
        NotFiredError: it never came up.
    """
    selected = {"actor": actor, "fact": fact, "for_s": MET_WITHIN_S}
    fault_id = await _arm(stage, "shard.before-react", "crash", **selected)
    async with trio.open_nursery() as nursery:
        if fact in PROVOKED:
            nursery.start_soon(PROVOKED[fact], stage)
        has_met = await wait_for(partial(_has_fired, stage, fault_id), within_s=MET_WITHIN_S)
        nursery.cancel_scope.cancel()
    await _calm(stage)
    if not has_met:
        raise NotFiredError(f"nothing of the kind came up within {MET_WITHIN_S:g} s")


async def _calm(stage: Stage) -> None:
    if not stage.gateway.process.running:
        stage.gateway.start()
        await stage.gateway.wait_serving()
    await stage.gateway.behave()


async def _lose_provider(stage: Stage) -> None:
    await stage.gateway.kill()
    await trio.sleep_forever()


async def _slow_provider(stage: Stage) -> None:
    """Then a cancel finds a charge under way."""
    await stage.gateway.behave(Trouble(delay_s=0.6))


async def _park_and_retry(stage: Stage) -> None:
    await stage.gateway.kill()
    await trio.sleep(OUTAGE_S)
    await _calm(stage)
    await _retry_parked(stage)


async def _retry_parked(stage: Stage) -> None:
    """Ask again about every order that needs attention, as a person would."""
    load = stage.load

    async def retry(order_id: str) -> None:
        await load.read(order_id)
        if load.accepted[order_id].status == OrderStatus.NEEDS_ATTENTION:
            with suppress(
                NoAnswerError
            ):  # It may be on its way all the same; who looks again sees.
                await stage.instance.administer("POST", f"/orders/{order_id}/retry")

    async with trio.open_nursery() as nursery:
        for order_id, accepted in list(load.accepted.items()):
            if accepted.status not in TERMINAL:
                nursery.start_soon(retry, order_id)


async def _stock_again(stage: Stage) -> None:
    await stage.load.stock(stage.instance.admin, {f"spare-{stage.fired}": 10})


PROVOKED: Mapping[str, Strike] = {
    "ReservationExpired": _lose_provider,
    "PaymentUnknown": _lose_provider,
    "RetryAsked": _park_and_retry,
    "PaymentRetried": _park_and_retry,
    "PaymentRefunded": _slow_provider,
    "PaymentVoided": _slow_provider,
    "OrderCancelled": _slow_provider,
    "StockCounted": _stock_again,
}


async def judge_crashes(stage: Stage) -> None:
    """Each crash is one failure in the log, and no other: the tree has counted what was injected."""
    told = sum(
        "InjectedFaultError" in str(line)
        for instance in stage.instances
        for line in instance.logged("child_crashed")
    )
    if told != stage.fired:
        stage.findings.append(f"{stage.fired} shards were crashed, and the log tells of {told}")


# --- F4: hung ---


async def hang(stage: Stage) -> None:
    """A shard waits for ever: readiness must say so."""
    actor = stage.rng.choice(sorted(ACTORS))
    async with stage.fault(f"{actor} waits for ever") as fault:
        fault_id = await _arm(stage, "shard.before-append", "hang", actor=actor, for_s=60.0)
        await _must_fire(stage, fault_id)
        fault.struck()
        since_s = trio.current_time()
        limit_s = DETECTED_WITHIN_S + MACHINE_S
        if await wait_for(partial(_is_unready, stage), within_s=limit_s):
            _note_time(stage, "seen", trio.current_time() - since_s)
        else:
            stage.findings.append(f"a hung {actor} was not seen within {limit_s:g} s")
        await stage.instance.administer("DELETE", f"/faults/{fault_id}")


async def block(stage: Stage) -> None:
    await _must_end(stage, "the loop stands still", "tail.before-delivery", "block", duration_s=60)


async def swallow(stage: Stage) -> None:
    await _must_end(
        stage, "a shard ignores its cancellation", "shard.before-append", "swallow", for_s=120
    )


async def _must_end(stage: Stage, name: str, point: str, action: str, **more: Any) -> None:
    """What cannot be cured within must end the process, with 70."""
    instance = stage.instance
    async with stage.fault(name) as fault:
        starts, ends = instance.process.starts, len(instance.ends)
        await _arm(stage, point, action, **more)
        fault.struck()
        since_s, limit_s = trio.current_time(), ENDED_WITHIN_S + MACHINE_S

        async def has_ended() -> bool:
            return len(instance.ends) > ends

        if not await wait_for(has_ended, within_s=limit_s):
            stage.findings.append(f"{name}, and the process ran on after {limit_s:g} s")
            await instance.kill()
        elif instance.ends[-1] != EXIT_HUNG:
            stage.findings.append(f"{name}, and the process ended with {instance.ends[-1]}")
        else:
            _note_time(stage, "ended", trio.current_time() - since_s)
        assert instance.process.starts >= starts


def _note_time(stage: Stage, what: str, took_s: float) -> None:
    stage.notes.append(f"{stage.row.id}: {what} after {took_s:.1f} s")


# --- fault injection over HTTP ---


async def _arm(stage: Stage, point: str, action: str, **more: Any) -> str:
    fault_id = await stage.instance.inject(point, action, **more)
    if fault_id is None:
        raise NotFiredError(f"{action} at {point} was not taken")
    return fault_id


async def _must_fire(stage: Stage, fault_id: str) -> None:
    if not await wait_for(partial(_has_fired, stage, fault_id), within_s=MET_WITHIN_S):
        raise NotFiredError(f"nobody came by within {MET_WITHIN_S:g} s")


async def _has_fired(stage: Stage, fault_id: str) -> bool:
    return await stage.instance.fired(fault_id) > 0


async def _is_unready(stage: Stage) -> bool:
    return not await stage.instance.says_ok("/readyz")


ROWS = (
    Row(
        "F3",
        "an actor crashes, by each message that it hears",
        goal="100 % of message types x 3 actors; as many restarts as crashes",
        run=crash_by_every_message,
        faults=len(PAIRS),
        setting=with_short_terms,
        judge=judge_crashes,
        in_mix=False,
    ),
    Row(
        "F4",
        "an actor hangs, or all of them",
        goal="seen within 10 s; what cannot be cured ends the process within 15 s",
        strikes=(hang, block, swallow),
        faults=3,
    ),
)
