"""A process in our hands: started on a host, paused, killed and awaited by its id; it never outlives us."""

import math
import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from runtime.chaos.host import LOOPBACK, Host
from runtime.embedded import dying_with_us

LOOK_AGAIN_S = 0.005
GONE_S = 10.0  # Longer only if the kernel itself waits for a disk that is gone.
STOP_S = 30.0  # From SIGTERM to SIGKILL: above the grace that an instance takes for itself.


class Process:
    """One program that can be started again and again; what it prints goes to the end of `log_file`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log_file: Path,
        environ: dict[str, str] | None = None,
        host: Host = LOOPBACK,
    ) -> None:
        self.argv = list(argv)
        self.environ = inherited() | (environ or {})
        self.host = host
        self.log_file = log_file
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it lives, be it paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of its last end; None before it, negative where a signal ended it."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        assert not self.running
        program, *more = self.host.command(self.argv)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # Every word of the command is ours.
                dying_with_us([shutil.which(program) or program, *more]),
                env=self.environ,
                cwd=self.log_file.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # A Ctrl-C in the terminal is for the campaign.
            )
        self.starts += 1

    def signal(self, number: int) -> None:
        """Send a signal; to a process that has ended it does nothing."""
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone, cancelled or not."""
        self.signal(signal.SIGKILL)
        with trio.move_on_after(GONE_S, shield=True):
            await self.wait_ended()

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    async def stop(self, within_s: float = STOP_S) -> int:
        """Ask it to end, and kill it where it does not; returns its exit code."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with trio.move_on_after(within_s):
            return await self.wait_ended()
        await self.kill()
        return -signal.SIGKILL

    async def wait_ended(self) -> int:
        """Wait for the end of the one that runs now; returns its exit code, 0 if it never was started."""
        process = self._process  # By the time that we look again there may be the next one.
        if process is None:
            return 0
        while (code := process.poll()) is None:  # noqa: ASYNC110  # The kernel sets no Event.
            await trio.sleep(LOOK_AGAIN_S)
        return code


async def wait_for(
    is_so: Callable[[], Awaitable[bool]], every_s: float = 0.05, within_s: float = math.inf
) -> bool:
    """Look at something that nobody tells about, again and again; False if the time ran out first."""
    with trio.move_on_after(within_s):
        while not await is_so():  # noqa: ASYNC110  # Nobody tells, see above.
            await trio.sleep(every_s)
        return True
    return False


def inherited() -> dict[str, str]:
    """What a process takes from the environment of this one: where programs and modules are, and nothing else."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {"PATH": os.defpath} | kept
