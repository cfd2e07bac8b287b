"""What the demo breaks half-way: every shard of an actor, and the nats-server. Supervision has to do the rest."""

import os
import signal
from collections.abc import Callable

import trio

from runtime.system import System

RECOVERY_S = 60.0  # An instance that takes longer is broken.
LOOK_AGAIN_S = 0.01


class InjectedFaultError(Exception):
    """A crash that somebody asked for."""


async def crash(system: System, actor: str) -> float:
    """Crash every shard of an actor; returns the seconds until others have taken their places."""
    assert system.root is not None
    supervisor = system.root.find(f"core/actors/{actor}")
    crashed = {a: shard for a, shard in system.shards.running().items() if a.actor == actor}
    for address in crashed:
        supervisor.crash_child(str(address), InjectedFaultError("the demo crashes every actor"))

    def is_replaced() -> bool:
        running = system.shards.running()
        return all(running.get(a) not in (None, shard) for a, shard in crashed.items())

    return await _wait_until(is_replaced)


async def kill_broker(system: System) -> float:
    """SIGKILL the nats-server; returns the seconds until the instance is ready again."""
    broker = system.embedded
    assert broker is not None
    assert broker.pid is not None
    killed = broker.pid
    os.kill(killed, signal.SIGKILL)
    return await _wait_until(
        lambda: broker.pid not in (None, killed) and system.desk.health().ready
    )


async def _wait_until(happened: Callable[[], bool]) -> float:
    """The seconds it took; raises trio.TooSlowError after RECOVERY_S."""
    started_s = trio.current_time()
    with trio.fail_after(RECOVERY_S):
        while not happened():  # noqa: ASYNC110  # The parts of an instance need not know who is watching.
            await trio.sleep(LOOK_AGAIN_S)
    return trio.current_time() - started_s
