"""Rows about the brokers' processes: killed, paused, restarted, one or several at a time."""

from collections.abc import Sequence

import trio

from runtime.chaos.brokers import Broker
from runtime.chaos.row import NotFiredError, Row
from runtime.chaos.stage import Stage

DOWN_S = (1.0, 5.0)
NO_QUORUM_S = (4.0, 8.0)
PAUSED_S = (8.0, 12.0)
LONG_PAUSE_S = 60.0
ANSWERED_WITHIN_MS = 2_500.0  # Two seconds are promised; the rest is this machine's.
LAME_DUCK_S = 60.0  # nats-server takes its time to send its clients away.


async def kill_leader(stage: Stage) -> None:
    await _kill(stage, "the leader", await stage.brokers.wait_leader())


async def kill_follower(stage: Stage) -> None:
    followers = await stage.brokers.followers()
    if not followers:
        return await kill_leader(stage)
    return await _kill(stage, "a follower", stage.rng.choice(followers))


async def kill_meta_leader(stage: Stage) -> None:
    leader = await stage.brokers.meta_leader()
    if leader is None:
        return await kill_leader(stage)
    return await _kill(stage, "the meta leader", leader)


async def _kill(stage: Stage, who: str, broker: Broker) -> None:
    await stage.brokers.wait_serving()
    async with stage.fault(f"kill -9 {who}", from_strike=_is_cluster(stage)) as fault:
        await broker.kill()
        fault.struck()
        await trio.sleep(stage.rng.uniform(*DOWN_S))
        broker.start()


async def kill_majority(stage: Stage) -> None:
    """Leave too few to decide anything, the leader among the dead."""
    leader = await stage.brokers.wait_leader()
    others = [broker for broker in stage.brokers.all if broker is not leader]
    await _kill_together(stage, "a majority", [leader, *others[: stage.brokers.quorum - 1]])


async def kill_all(stage: Stage) -> None:
    await _kill_together(stage, "all brokers", stage.brokers.all)


async def _kill_together(stage: Stage, who: str, brokers: Sequence[Broker]) -> None:
    await stage.brokers.wait_serving()
    async with stage.fault(f"{_NO_QUORUM}: kill -9 {who}") as fault:
        async with trio.open_nursery() as nursery:
            for broker in brokers:
                nursery.start_soon(broker.kill)
        fault.struck()
        await trio.sleep(stage.rng.uniform(*NO_QUORUM_S))
        stage.brokers.start()


_NO_QUORUM = "no quorum"


async def judge_answers(stage: Stage) -> None:
    """While nothing could be stored nothing was accepted, and whoever asked was told so in time."""
    for fault in stage.faults:
        if not fault.name.startswith(_NO_QUORUM):
            continue
        for attempt in stage.load.attempts_between(fault.at_ms, fault.healed_ms):
            if attempt.op != "place":
                continue
            if 200 <= attempt.code < 300:
                stage.findings.append(f"{attempt.key} was accepted with {fault.name}")
            elif attempt.took_ms > ANSWERED_WITHIN_MS:
                told = attempt.code or "no answer"
                stage.findings.append(f"{told} after {attempt.took_ms:.0f} ms with {fault.name}")
            stage.counts[f"answers of {attempt.code} without a quorum"] += 1


async def pause_leader(stage: Stage) -> None:
    leader = await stage.brokers.wait_leader()
    await stage.brokers.wait_serving()
    is_long = stage.options.long and stage.rng.random() < 0.2
    lasts_s = LONG_PAUSE_S if is_long else stage.rng.uniform(*PAUSED_S)
    name = f"SIGSTOP of the leader for {lasts_s:.0f} s"
    async with stage.fault(name, from_strike=_is_cluster(stage)) as fault:
        leader.pause()
        fault.struck()
        try:
            await trio.sleep(lasts_s)
        finally:
            leader.resume()


async def restart(stage: Stage) -> None:
    """SIGTERM, and the next one: what an upgrade does."""
    broker = await stage.brokers.wait_leader()
    await stage.brokers.wait_serving()
    name = "restart of the leader"
    async with stage.fault(name, from_strike=_is_cluster(stage)) as fault:
        fault.struck()
        await broker.stop()
        broker.start()


async def lame_duck(stage: Stage) -> None:
    """Let the leader send its clients away, and end by itself."""
    broker = await stage.brokers.wait_leader()
    await stage.brokers.wait_serving()
    async with stage.fault("lame duck", from_strike=_is_cluster(stage)) as fault:
        broker.lame_duck()
        fault.struck()
        with trio.move_on_after(LAME_DUCK_S):
            await broker.process.wait_ended()
        if broker.running:
            await broker.kill()
            raise NotFiredError(f"it still ran after {LAME_DUCK_S:g} s")
        broker.start()


async def reload(stage: Stage) -> None:
    """Make it read its configuration again; nobody should notice."""
    broker = stage.rng.choice(stage.brokers.all)
    await stage.brokers.wait_serving()
    async with stage.fault("reload of a configuration", from_strike=True) as fault:
        broker.reload()
        fault.struck()
        await trio.sleep(0.5)


async def count_errors(stage: Stage) -> None:
    """What clients saw of restarts that were asked for."""
    for fault in stage.faults:
        for attempt in stage.load.attempts_between(fault.at_ms, fault.healed_ms):
            if attempt.code >= 500 or not attempt.code:
                stage.counts[f"{attempt.code or 'no answer'} during {fault.name}"] += 1


async def cold_restart(stage: Stage) -> None:
    """Everything dies at once, and is started again, brokers first."""
    await stage.brokers.wait_serving()
    async with stage.fault("kill -9 everything") as fault:
        async with trio.open_nursery() as nursery:
            for broker in stage.brokers.all:
                nursery.start_soon(broker.kill)
            nursery.start_soon(stage.instance.end)
            nursery.start_soon(stage.gateway.kill)
        fault.struck()
        await trio.sleep(stage.rng.uniform(0, 2))
        stage.brokers.start()
        stage.gateway.start()
        stage.instance.start()


def _is_cluster(stage: Stage) -> bool:
    return stage.brokers.replicas > 1


ROWS = (
    Row(
        "F6",
        "kill -9 one broker",
        goal="0/0; gap to the next accepted order p95 <= 15 s",
        strikes=(kill_leader, kill_follower, kill_meta_leader),
        faults=12,
        pause_s=(1.0, 4.0),
    ),
    Row(
        "F7",
        "kill -9 a majority, or all",
        goal="503 within 2 s while there is no quorum, never 202; recovery p95 <= 20 s",
        strikes=(kill_majority, kill_all),
        faults=8,
        judge=judge_answers,
    ),
    Row(
        "F8",
        "SIGSTOP of the broker that leads",
        goal="p95 <= 15 s",
        strikes=(pause_leader,),
        faults=5,
    ),
    Row(
        "F9",
        "a broker restarts in order",
        goal="no error that a retry does not cure",
        strikes=(restart, reload, lame_duck),
        faults=6,
        judge=count_errors,
    ),
    Row(
        "F26",
        "cold restart of everything",
        goal="0/0",
        strikes=(cold_restart,),
        faults=6,
    ),
)
