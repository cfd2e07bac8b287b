"""The platform: keeps a process running, as systemd or Kubernetes would, and does to it what the schedule says."""

from typing import Final

import trio

from runtime.explore.schedule import Fault, Kind
from runtime.explore.world import Process, World
from runtime.faults import Fault as Failpoint
from runtime.faults.points import Action

RESTART_S: Final = (
    0.3  # From a process' unexpected end to the start of the next; longer where that does not help.
)
RESTART_S_MAX: Final = 30.0
STABLE_S: Final = 10.0
CRASH_AGAIN_S: Final = 0.5
REACT_FAILURES_MAX: Final = (
    2  # One less than a fact is buried after: then its order would rightly be stuck.
)


class Platform:
    """One slot is kept filled. A rival opens another slot; what then ends in the older one is not replaced."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.nemesis.act = self.act
        self._slot = 0
        self._started = 0
        self._pause_s: float | None = None
        self._react_failures = 0
        self._outages = 0
        self.healed_s = 0.0
        """When nothing more went wrong; 0 until then."""

    async def keep_running(self) -> None:
        """Start a process whenever the one in the newest slot has ended."""
        self._slot += 1
        slot, usual_pause_s = self._slot, RESTART_S
        while slot == self._slot:
            process, started_s = self._start(), trio.current_time()
            await process.ended.wait()
            is_loop = trio.current_time() < started_s + STABLE_S
            usual_pause_s = min(2 * usual_pause_s, RESTART_S_MAX) if is_loop else RESTART_S
            pause_s, self._pause_s = self._pause_s, None
            await trio.sleep(usual_pause_s if pause_s is None else pause_s)

    def _start(self) -> Process:
        self._started += 1
        process = Process(self._world, self._started)
        if self._outages:
            process.log.disconnect()
        self._world.processes.append(process)
        self._world.nursery.start_soon(process.run)
        return process

    def act(self, fault: Fault) -> None:
        """Let one fault happen now, to whatever process is the newest."""
        world, process = self._world, self._world.newest
        for_s = fault.for_ms / 1000
        start_soon = world.nursery.start_soon
        match fault.kind:
            case Kind.CRASH:
                start_soon(self._crash, process, fault.target, for_s)
            case Kind.RAISE:
                self._arm(process, fault.target)
            case Kind.KILL:
                if world.line.in_flight:
                    world.nemesis.seen["a process was killed during a call"] += 1
                self._pause_s = for_s
                process.kill()
            case Kind.STOP:
                self._pause_s = for_s
                start_soon(process.stop)
            case Kind.RIVAL:
                start_soon(self.keep_running)
            case Kind.PARTITION:
                start_soon(process.log.gate.close_for, for_s)
                start_soon(self.keep_running)
            case Kind.OUTAGE:
                start_soon(self._lose_broker, for_s)
            case Kind.PAUSE:
                start_soon(world.broker.close_for, for_s)
            case Kind.DOWN:
                world.line.down_until_s = trio.current_time() + for_s
            case Kind.JUMP:
                world.clock_ahead_ms += fault.for_ms

    async def _crash(self, process: Process, target: str, for_s: float) -> None:
        until_s = trio.current_time() + for_s
        process.crash(target)
        while trio.current_time() < until_s and not process.ended.is_set():
            await trio.sleep(CRASH_AGAIN_S)
            process.crash(target)

    def _arm(self, process: Process, target: str) -> None:
        name, _, point = target.partition(" ")
        actor, _, shard = name.partition(".")
        if point == "shard.before-react":
            self._react_failures += 1
            if self._react_failures > REACT_FAILURES_MAX:
                return
        process.faults.arm(Failpoint(point, Action.RAISE, actor, int(shard)))

    async def _lose_broker(self, for_s: float) -> None:
        """Break every connection, and let nobody connect for a while."""
        self._outages += 1
        for process in self._world.alive:
            process.log.disconnect()
        await trio.sleep(for_s)
        self._outages -= 1
        for process in self._world.alive:
            if not self._outages and not process.log.connected:
                process.log.reconnect()

    def heal(self) -> None:
        """From now on nothing more goes wrong; what stands still goes on by itself when its time is over."""
        self.healed_s = trio.current_time()
        self._world.nemesis.rest()
        self._world.line.down_until_s = 0.0
        for process in self._world.alive:
            process.faults.clear_all()
