"""Rows about the brokers' disks: the power is cut, they are full, they fail, they are slow.

A broker that has met an error of its disk stays in error until it is started again, and says so at
/healthz. So these rows do what a platform does: they start a broker again that is not well.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import trio

from runtime.audit.journal import Op, Told
from runtime.chaos.brokers import Broker, Ground
from runtime.chaos.disks import (
    POWER_TOOLS,
    SLOW_TOOLS,
    SMALL_TOOLS,
    SYNCS,
    WRITES,
    PowerDisk,
    SmallDisk,
    injected,
    open_power_disk,
    open_small_disk,
)
from runtime.chaos.host import LOOPBACK
from runtime.chaos.outcome import percentile
from runtime.chaos.process import wait_for
from runtime.chaos.row import MakeSetting, NotFiredError, Options, Row, Setting, Strike
from runtime.chaos.stage import Stage
from runtime.chaos.tools import missing

POWER_DISK_MB: Final = 1024  # A sparse file: it takes what is written.
SMALL_DISK_MB: Final = 256  # Room for the orders of a run; the ballast makes it small.
SERVING_S: Final = 60.0
SICK_S: Final = 20.0  # A broker that writes notices a full or broken disk at the next order.
SINCE_SYNC_S: Final = (1.0, 3.0)
LASTS_S: Final = (2.0, 6.0)  # How long a disk stays broken, from and to.
RECOVERY_MAX_S: Final = 60.0
SLOWED_S: Final = 8.0  # A slow disk; longer where one sync takes seconds.
FIRST_SYNCS: Final = 3

_D = TypeVar("_D", PowerDisk, SmallDisk)


# --- F14 and F15: the power ---


def cut_power(count: int) -> Strike:
    """The power of so many brokers goes at one moment, and comes back a little later."""

    async def strike(stage: Stage) -> None:
        victims = stage.rng.sample(stage.brokers.all, min(count, stage.brokers.replicas))
        async with stage.fault(f"power cut of {_names(victims)}") as fault:
            await _settle(stage)
            await _lose_power(stage, victims)
            fault.struck()
            await trio.sleep(stage.rng.uniform(0, 3))
            _return_power(stage, victims)
        await stage.brokers.wait_serving(SERVING_S)

    return strike


async def cut_power_of_the_last_copy(stage: Stage) -> None:
    """A peer is down, the other one that has everything loses its power, and then the leader goes away.

    The two that come back are a majority, and know only what the one with the power cut had synced.
    """
    leader = await stage.brokers.wait_leader()
    down, cut = stage.rng.sample([b for b in stage.brokers.all if b is not leader], 2)
    async with stage.fault(f"{down.name} down, {cut.name} power cut, {leader.name} away") as fault:
        await _settle(stage)
        await down.kill()
        since_s = trio.current_time()
        if await stage.load.wait_accept(since_s, SERVING_S) is None:
            raise NotFiredError("nothing was accepted with a peer down")
        await trio.sleep(stage.rng.uniform(2, 4))
        await _lose_power(stage, [cut])
        await leader.kill()
        fault.struck()
        _return_power(stage, [cut])
        down.start()
        await stage.load.wait_accept(trio.current_time(), SERVING_S)  # By those two alone.
        leader.start()
    await stage.brokers.wait_serving(SERVING_S)


async def _settle(stage: Stage) -> None:
    """Let all disks keep what is old, and some orders come in that are not."""
    for broker in stage.brokers.all:
        _disk_of(stage, broker, PowerDisk).settle()
    await trio.sleep(stage.rng.uniform(*SINCE_SYNC_S))


async def _lose_power(stage: Stage, victims: Sequence[Broker]) -> None:
    """All of them at one moment: first they stand still, so that none sees another one go."""
    for broker in victims:
        broker.pause()
    for broker in victims:
        _disk_of(stage, broker, PowerDisk).cut()
    for broker in victims:
        await broker.kill()


def _return_power(stage: Stage, victims: Sequence[Broker]) -> None:
    for broker in victims:
        _disk_of(stage, broker, PowerDisk).restore()
        broker.start()


# --- F16: no room ---


def fill(choose: Callable[[Stage], Sequence[Broker]]) -> Strike:
    """The disks of these brokers are full for a while, and then there is room again."""

    async def strike(stage: Stage) -> None:
        victims = choose(stage)
        async with stage.fault(f"full disk of {_names(victims)}") as fault:
            disks = [_disk_of(stage, broker, SmallDisk) for broker in victims]
            try:
                await _wait_sick(victims, disks)
                fault.struck()
                await trio.sleep(stage.rng.uniform(*LASTS_S))
            finally:
                for disk in disks:
                    disk.make_room()
            await _restart_sick(victims)
        await stage.brokers.wait_serving(SERVING_S)

    return strike


async def _wait_sick(victims: Sequence[Broker], disks: Sequence[SmallDisk]) -> None:
    """Keep the disks full until each broker has met the error."""

    async def are_sick() -> bool:
        for disk in disks:
            disk.fill()
        return not any([await broker.ask("/healthz") for broker in victims])

    if not await wait_for(are_sick, within_s=SICK_S):
        raise NotFiredError(f"not noticed within {SICK_S:g} s")


# --- F17: calls that fail, or take their time ---


def fail_calls(calls: str) -> Strike:
    """These system calls of one broker fail for a while, as on a disk that is dying."""

    async def strike(stage: Stage) -> None:
        broker = stage.rng.choice(stage.brokers.all)
        async with stage.fault(f"EIO in {calls} of {broker.name}") as fault:
            with injected(broker.process.pid, calls, "error=EIO") as injection:
                if not await wait_for(partial(_has, injection.count), within_s=SICK_S):
                    raise NotFiredError("no such call was made")
                fault.struck()
                await trio.sleep(stage.rng.uniform(*LASTS_S))
            await _restart_sick([broker])
        await stage.brokers.wait_serving(SERVING_S)

    return strike


def slow_syncs(choose: Callable[[Stage], Sequence[Broker]], delay_s: float) -> Strike:
    """Every sync of these brokers takes longer, for a while."""

    async def strike(stage: Stage) -> None:
        victims = choose(stage)
        name = f"{delay_s * 1000:g} ms a sync at {_names(victims)}"
        async with stage.fault(name) as fault:
            with ExitStack() as stack:
                injections = [
                    stack.enter_context(
                        injected(one.process.pid, SYNCS, f"delay_enter={delay_s * 1000:g}ms")
                    )
                    for one in victims
                ]
                for injection in injections:
                    if not await wait_for(partial(_has, injection.count), within_s=SICK_S):
                        raise NotFiredError("nothing was synced")
                fault.struck()
                began = len(stage.load.attempts)
                await trio.sleep(max(SLOWED_S, FIRST_SYNCS * delay_s))
                took_ms = [
                    attempt.took_ms
                    for attempt in stage.load.attempts[began:]
                    if attempt.op is Op.PLACE and attempt.outcome is Told.ACCEPTED
                ]
            stage.notes.append(
                f"{name}: {len(took_ms)} accepted, p50 {percentile(took_ms, 50):.0f} ms,"
                f" p99 {percentile(took_ms, 99):.0f} ms"
            )
            await _restart_sick(victims)
        await stage.brokers.wait_serving(SERVING_S)

    return strike


async def _has(count: Callable[[], int]) -> bool:
    return count() > 0


# --- what a platform does ---


async def _restart_sick(brokers: Sequence[Broker]) -> None:
    """Start those again that have ended, or say at /healthz that they are not well."""
    for broker in brokers:
        if await broker.ask("/healthz") is None:
            await broker.kill()
            broker.start()


async def recovers_in_time(stage: Stage) -> None:
    if (longest_s := max(stage.recoveries_s, default=0.0)) > RECOVERY_MAX_S:
        stage.findings.append(f"a recovery took {longest_s:.0f} s, more than {RECOVERY_MAX_S:g} s")


# --- which broker, on which disk ---


def any_one(stage: Stage) -> Sequence[Broker]:
    return [stage.rng.choice(stage.brokers.all)]


def every_one(stage: Stage) -> Sequence[Broker]:
    return stage.brokers.all


def _names(brokers: Sequence[Broker]) -> str:
    return " and ".join(broker.name for broker in brokers)


@dataclass(frozen=True, slots=True)
class _DiskGround(Ground):
    """A broker's ground with the disk under it, for those who break that."""

    disk: PowerDisk | SmallDisk


def _disks_of_their_own(
    open_disk: Callable[[], AbstractContextManager[PowerDisk | SmallDisk]],
) -> MakeSetting:
    @asynccontextmanager
    async def setting(options: Options) -> AsyncIterator[Setting]:
        with ExitStack() as stack:
            grounds = []
            for _ in range(options.brokers):
                disk = stack.enter_context(open_disk())
                grounds.append(_DiskGround(LOOPBACK, disk.path / "store", disk))
            yield Setting(grounds)

    return setting


def _disk_of(stage: Stage, broker: Broker, kind: type[_D]) -> _D:
    ground = stage.setting.grounds[stage.brokers.all.index(broker)]
    assert isinstance(ground, _DiskGround)
    assert isinstance(ground.disk, kind)
    return ground.disk


ROWS = (
    Row(
        "F14",
        "power cuts: one broker, two, all",
        goal="0 lost",
        strikes=(cut_power(1), cut_power(2), cut_power(3)),
        faults=9,
        missing=partial(missing, POWER_TOOLS),
        setting=_disks_of_their_own(partial(open_power_disk, POWER_DISK_MB)),
        in_mix=False,
    ),
    Row(
        "F15",
        "a peer is down, the other loses its power, the leader goes away",
        goal="0 lost",
        strikes=(cut_power_of_the_last_copy,),
        faults=5,
        brokers=frozenset({3}),
        missing=partial(missing, POWER_TOOLS),
        setting=_disks_of_their_own(partial(open_power_disk, POWER_DISK_MB)),
        in_mix=False,
    ),
    Row(
        "F16",
        "full disks: of one broker, of all",
        goal="202 only after durable, 503 otherwise; accepts again <= 60 s after there is room",
        strikes=(fill(any_one), fill(every_one)),
        faults=6,
        missing=partial(missing, SMALL_TOOLS),
        setting=_disks_of_their_own(partial(open_small_disk, SMALL_DISK_MB)),
        judge=recovers_in_time,
        in_mix=False,
    ),
    Row(
        "F17",
        "a broker's disk gives errors, or takes 50 ms, 500 ms, 5 s a sync",
        goal="0 lost; the p99 of accepting under 50 ms a sync is told",
        strikes=(
            fail_calls(WRITES),
            fail_calls(SYNCS),
            slow_syncs(every_one, 0.05),
            slow_syncs(every_one, 0.5),
            slow_syncs(any_one, 5.0),
            slow_syncs(every_one, 5.0),
        ),
        faults=6,
        missing=partial(missing, SLOW_TOOLS),
        judge=recovers_in_time,
        in_mix=False,
    ),
)
