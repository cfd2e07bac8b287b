"""F25: what the brokers keep for an instance is deleted, replaced or closed to it while it runs.

It has to close within seconds, say why, and make nothing anew: a person decides. What was accepted before is gone by
the operator's hand and outside of the promise, so no audit could say anything about it. Each fault therefore has a
stage of its own, which is judged here and thrown away; the customers next door only show that the machine is well.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from runtime.audit.journal import Op, Told
from runtime.bridge import Address, Bridge
from runtime.chaos.campaign import open_stage, staged
from runtime.chaos.gateway_process import Trouble
from runtime.chaos.http import NoAnswerError
from runtime.chaos.instance import READY_S, Instance
from runtime.chaos.outcome import percentile
from runtime.chaos.process import wait_for
from runtime.chaos.row import Row, this_machine
from runtime.chaos.stage import Fault, Stage
from runtime.jetstream_api import STREAM_NOT_FOUND, Api, translated
from runtime.jetstream_streams import EVENTS, NAMES, SNAPSHOTS, VIEWS

EXIT_CONFIG = 78
CLOSED_WITHIN_S = 10.0
ENDED_WITHIN_S = 30.0  # From then on; the platform's grace for a stop.
CLOSED_FOR_S = 3.0  # While customers insist.
ORDERS_BEFORE = 10
NEXT_DOOR_RATE = 5.0  # Orders a second on the stage where nothing happens.
STRANGERS_ONLY = '\nauthorization { user: "somebody", password: "else" }\n'

Harm = Callable[[Api], Awaitable[None]]
Play = Callable[[Stage, Api, Fault], Awaitable[None]]
Kept = Mapping[str, tuple[str, int]]
"""Each stream that there is: when it was created, and how many messages it has."""


async def run(stage: Stage) -> None:
    """One harm after the other, each on a stage of its own."""
    stage.load.rate = NEXT_DOOR_RATE
    await stage.gateway.behave(
        Trouble(delay_s=0.2)
    )  # Else everything is over before it is cancelled.
    closed_s: list[float] = []
    names = list(HARMS)
    for number in range(stage.planned):
        fault = Fault(names[number % len(names)], from_strike=False)
        options = replace(stage.options, directory=stage.directory / f"harm-{number + 1}")
        options.directory.mkdir()
        async with this_machine(options) as setting, staged(stage.row, options, setting) as ground:
            await open_stage(ground)
            await ground.load.wait_begun(ORDERS_BEFORE)
            async with _operator(ground) as api:
                await HARMS[fault.name](ground, api, fault)
        stage.faults.append(fault)
        stage.findings += [f"{fault.name}: {one}" for one in ground.findings]
        stage.counts[_OUTSIDE] += len(ground.load.accepted)
        closed_s.append((fault.healed_ms - fault.at_ms) / 1000)
    p50_s, most_s = (percentile(closed_s, share) for share in (50, 100))
    stage.notes.append(f"closed after p50 {p50_s:.2f} s, max {most_s:.2f} s")


_OUTSIDE = "accepted before a harm that took them away, so outside of the promise"


# --- the harms ---


async def _lose(harm: Harm, told: str, ground: Stage, api: Api, fault: Fault) -> None:
    """Harm a stream: the instance ends, and so does whoever is started after it; `told` is in the reasons."""
    ground.instance.release()
    fault.struck()
    await harm(api)
    await _expect_closed(ground, fault, told)
    await _expect_end(ground, told, ENDED_WITHIN_S)
    kept = await _kept(api)
    _start_once(ground.instance)
    await _expect_end(ground, told, READY_S)
    if (now := await _kept(api)) != kept:
        ground.findings.append(f"a stream was made or written after the end: {now}, not {kept}")


async def _revoke(ground: Stage, api: Api, fault: Fault) -> None:
    """Let the brokers know nobody any more: it closes, whoever is started then ends, and all is well afterwards."""
    ground.instance.release()
    kept = await _kept(api)
    fault.struck()
    _configure(ground, STRANGERS_ONLY)
    await _expect_closed(ground, fault, "not connected")
    await ground.instance.kill()
    _start_once(ground.instance)
    await _expect_end(ground, "refuses us", READY_S)
    _configure(ground, "")
    await api.bridge.wait_connected()
    if (now := await _kept(api)).keys() != kept.keys() or now[EVENTS] < kept[EVENTS]:
        ground.findings.append(f"the streams are not what they were: {now}, not {kept}")
    ground.instance.start()
    await ground.instance.wait_ready()


def _configure(ground: Stage, more: str) -> None:
    """Let all brokers read their configuration again, with `more` after what it was."""
    for broker in ground.brokers.all:
        text = broker.config_file.read_text().removesuffix(STRANGERS_ONLY)
        broker.config_file.write_text(text + more)
        broker.reload()


async def _delete(stream: str, api: Api) -> None:
    await api.call(f"STREAM.DELETE.{stream}")


async def _make_anew(stream: str, change: Mapping[str, Any], api: Api) -> None:
    config = (await api.call(f"STREAM.INFO.{stream}"))["config"]
    await _delete(stream, api)
    await api.call(f"STREAM.CREATE.{stream}", {**config, **change})


HARMS: Mapping[str, Play] = {
    "the stream of orders is deleted": partial(_lose, partial(_delete, EVENTS), EVENTS),
    "the bucket of views is deleted": partial(_lose, partial(_delete, VIEWS), VIEWS),
    "credentials are revoked": _revoke,
    "the stream of orders is made anew, as it was": partial(
        _lose, partial(_make_anew, EVENTS, {}), EVENTS
    ),
    "the snapshots are deleted": partial(_lose, partial(_delete, SNAPSHOTS), SNAPSHOTS),
    "the bucket of views is made anew, in another shape": partial(
        _lose, partial(_make_anew, VIEWS, {"max_msgs_per_subject": 5}), VIEWS
    ),
    "the stream of orders is made anew, in another shape": partial(
        _lose, partial(_make_anew, EVENTS, {"max_age": 3_600 * 10**9}), EVENTS
    ),
}


# --- what is expected ---


async def _expect_closed(ground: Stage, fault: Fault, told: str) -> None:
    """Not ready within seconds, for a reason that names the trouble; and from then on nothing is accepted."""
    instance, reason = ground.instance, ""

    async def is_closed() -> bool:
        nonlocal reason
        try:
            answer = await ground.http.ask("GET", instance.http, "/readyz", within_s=1.0)
        except NoAnswerError:
            reason = _last_words(instance)
            return not instance.process.running
        reason = answer.body.decode()
        return answer.status == 503 and told in reason

    if not await wait_for(is_closed, within_s=CLOSED_WITHIN_S):
        ground.findings.append(f"not closed within {CLOSED_WITHIN_S:g} s: {reason}")
    fault.healed_ms = _now_ms()
    if told not in reason:
        ground.findings.append(f"the reason does not tell of {told!r}: {reason}")
    await trio.sleep(CLOSED_FOR_S)
    for one in ground.load.attempts_between(fault.healed_ms, _now_ms()):
        if one.op == Op.PLACE and one.outcome is Told.ACCEPTED:
            ground.findings.append(f"{one.key} was accepted when it was closed")


async def _expect_end(ground: Stage, told: str, within_s: float) -> None:
    """It ends by itself, as one that no restart cures, and says why."""
    instance, code = ground.instance, None
    with trio.move_on_after(within_s):
        code = await instance.process.wait_ended()
    if code != EXIT_CONFIG:
        ground.findings.append(f"it ended with {code}, not {EXIT_CONFIG}, within {within_s:g} s")
        await instance.kill()
    elif told not in _last_words(instance):
        ground.findings.append(f"its last words do not tell of {told!r}: {_last_words(instance)}")


def _last_words(instance: Instance) -> str:
    endings = instance.logged("process_ending")
    return str(endings[-1]["reason"]) if endings else ""


def _start_once(instance: Instance) -> None:
    instance.start()
    instance.release()


async def _kept(api: Api) -> Kept:
    kept = {}
    for name in NAMES:
        error, answer = await api.try_call(f"STREAM.INFO.{name}")
        if error is None:
            kept[name] = answer["created"], answer["state"]["messages"]
        elif error.err_code != STREAM_NOT_FOUND:
            raise translated(error, name)
    return kept


@asynccontextmanager
async def _operator(ground: Stage) -> AsyncIterator[Api]:
    async with trio.open_nursery() as nursery:
        bridge = Bridge(Address(ground.brokers.urls), name="operator")
        await nursery.start(bridge.run)
        await bridge.wait_connected()
        yield Api(bridge)
        nursery.cancel_scope.cancel()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


ROWS = (
    Row(
        "F25",
        "streams deleted, replaced, closed to us",
        goal="/readyz false <= 10 s with the reason; no 202 afterwards; exit 78; never an empty stream made anew",
        run=run,
        faults=len(HARMS),
        in_mix=False,
    ),
)
