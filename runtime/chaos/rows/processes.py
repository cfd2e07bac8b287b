"""Rows about the instance's process: killed, paused, hung, starved."""

from runtime.chaos.row import Row
from runtime.chaos.stage import Stage


async def kill_instance(stage: Stage) -> None:
    async with stage.fault("kill -9 the instance") as fault:
        await stage.instance.kill()
        fault.struck()


ROWS = (
    Row(
        "F1",
        "kill -9 the instance",
        goal="0 lost, 0 charged twice; p99 to the next accepted order <= 5 s",
        strikes=(kill_instance,),
        faults=20,
        pause_s=(1.0, 4.0),
    ),
)
