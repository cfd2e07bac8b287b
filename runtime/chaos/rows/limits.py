"""The row about what a machine runs out of: file descriptors, memory, room for logs and temporary files."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from runtime.chaos.disks import SMALL_TOOLS, SmallDisk, open_small_disk
from runtime.chaos.process import wait_for
from runtime.chaos.row import NotFiredError, Options, Row, Setting, this_machine
from runtime.chaos.stage import Stage
from runtime.chaos.tools import missing as tools_missing

MEMORY: Final = Path("/sys/fs/cgroup/memory")
LEFT_BYTES: Final = 2 << 20  # It was fine until now, and gets so much more.
DIES_WITHIN_S: Final = 30.0
FDS: Final = 64
LASTS_S: Final = (4.0, 8.0)
DISK: Final = "disk of the instance"


def missing() -> str:
    if not (MEMORY / "cgroup.procs").exists():
        return f"{MEMORY} is missing: mount the memory controller (cgroup v1) there"
    return tools_missing((*SMALL_TOOLS, "prlimit"))


async def few_fds(stage: Stage) -> None:
    """Start it anew with so few file descriptors that its customers use them up."""
    async with stage.fault(f"{FDS} file descriptors") as fault:
        await _restart(stage, ("prlimit", f"--nofile={FDS}:{FDS}"))
        fault.struck()
        rate, stage.load.rate = stage.load.rate, stage.load.rate * 4
        await trio.sleep(stage.rng.uniform(*LASTS_S))
        stage.load.rate = rate
        await _restart(stage, ())


async def _restart(stage: Stage, prefix: tuple[str, ...]) -> None:
    stage.instance.prefix = prefix
    await stage.instance.kill()
    await stage.instance.wait_ready()


async def out_of_memory(stage: Stage) -> None:
    """Leave it next to no memory to grow into, until the kernel kills it."""
    group = MEMORY / f"orders-chaos-{os.getpid()}"
    group.mkdir()
    instance = stage.instance
    try:
        async with stage.fault("out of memory", from_strike=True) as fault:
            pid = instance.process.pid
            (group / "memory.limit_in_bytes").write_text(str(LEFT_BYTES))
            (group / "cgroup.procs").write_text(str(pid))

            async def is_dead() -> bool:
                return not instance.process.running or instance.process.pid != pid

            if not await wait_for(is_dead, within_s=DIES_WITHIN_S):
                await instance.kill()
                raise NotFiredError(f"it lived on {LEFT_BYTES} bytes for {DIES_WITHIN_S:g} s")
            fault.struck()
    finally:
        with suppress(OSError):  # The kernel takes a moment to let go of the dead.
            await trio.sleep(0.5)
            group.rmdir()


async def full_disks(stage: Stage) -> None:
    """No room for its log, nor in its temporary directory."""
    async with stage.fault("no room for logs and temporary files") as fault:
        disk = _disk(stage)
        disk.fill()
        fault.struck()
        try:
            await trio.sleep(stage.rng.uniform(*LASTS_S))
        finally:
            disk.make_room()


@asynccontextmanager
async def with_small_disk(options: Options) -> AsyncIterator[Setting]:
    with open_small_disk() as disk:
        async with this_machine(options) as setting:
            environ = {"TMPDIR": str(disk.path), "ORDERS_TRACE_FILE": str(disk.path / "traces")}
            yield replace(setting, environ={**setting.environ, **environ}, tools={DISK: disk})


async def log_to_small_disk(stage: Stage) -> None:
    stage.instance.process.log_file = _disk(stage).path / "instance.log"


def _disk(stage: Stage) -> SmallDisk:
    disk = stage.setting.tools[DISK]
    assert isinstance(disk, SmallDisk)
    return disk


ROWS = (
    Row(
        "F19",
        "the instance runs out of something",
        goal="0/0; it ends and starts again, or goes on",
        strikes=(few_fds, out_of_memory, full_disks),
        faults=6,
        missing=missing,
        setting=with_small_disk,
        wire=log_to_small_disk,
        explains="a log line could not be rendered",
        in_mix=False,
    ),
)
