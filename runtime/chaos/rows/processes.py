"""Rows about the instance's process as the machine sees it: killed, or paused until somebody else has its place."""

import trio

from runtime.chaos.instance import EXIT_SUPERSEDED, Instance
from runtime.chaos.row import Row
from runtime.chaos.stage import Stage

PAUSE_S = 5.0
LONG_PAUSES_S = (45.0, 200.0)
ZOMBIE_ENDS_S = 30.0


async def kill_instance(stage: Stage) -> None:
    async with stage.fault("kill -9 the instance") as fault:
        await stage.instance.kill()
        fault.struck()


async def pause_instance(stage: Stage) -> None:
    async with stage.fault(f"SIGSTOP of the instance for {PAUSE_S:g} s") as fault:
        process = stage.instance.process
        process.pause()
        fault.struck()
        try:
            await trio.sleep(PAUSE_S)
        finally:
            process.resume()


async def wake_beside_successor(stage: Stage) -> None:
    """Pause the instance, start another one, and wake the first: it must be refused, and end."""
    zombie, successor = stage.instance, stage.add_instance()
    name = "a paused instance wakes beside its successor"
    async with stage.fault(name, from_strike=True) as fault:
        zombie.process.pause()
        fault.struck()
        zombie.release()
        try:
            stage.instance = successor
            successor.start()
            await _let_it_sleep(stage)
        finally:
            zombie.process.resume()
        await _must_end(stage, fault_name=name, zombie=zombie)
        await successor.wait_ready()


async def _let_it_sleep(stage: Stage) -> None:
    """Sometimes it wakes while the other takes over, sometimes long after."""
    if stage.options.long:
        await trio.sleep(stage.rng.choice(LONG_PAUSES_S))
    elif stage.rng.random() < 0.5:
        await trio.sleep(stage.rng.uniform(0.2, 2.0))
    else:
        await stage.instance.wait_ready()
        await trio.sleep(stage.rng.uniform(0.5, 3.0))


async def _must_end(stage: Stage, *, fault_name: str, zombie: Instance) -> None:
    with trio.move_on_after(ZOMBIE_ENDS_S):
        code = await zombie.process.wait_ended()
        if code != EXIT_SUPERSEDED:
            stage.findings.append(f"{fault_name}, and ends with {code}, not {EXIT_SUPERSEDED}")
        return
    stage.findings.append(f"{fault_name}, and still runs {ZOMBIE_ENDS_S:g} s later")


ROWS = (
    Row(
        "F1",
        "kill -9 the instance",
        goal="0 lost, 0 charged twice; p99 to the next accepted order <= 5 s",
        strikes=(kill_instance,),
        faults=20,
        pause_s=(1.0, 4.0),
    ),
    Row(
        "F5",
        "SIGSTOP of the instance, its place taken or not",
        goal="no write of a zombie is taken; it ends by itself",
        strikes=(wake_beside_successor, pause_instance),
        faults=4,
    ),
)
