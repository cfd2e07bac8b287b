"""Instances in no time: forked from a process that has everything imported and has run nothing yet.

What a fork runs is what `orders run` runs, from the configuration on; only the seconds of importing are spared. A
campaign that kills an instance a thousand times has no others to spend.
"""

import ctypes
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec
import trio

from runtime.embedded import dying_with_us

ANSWER_S = 60.0  # The imports of a busy machine.
PR_SET_PDEATHSIG = 1
ENDED = -1  # In the place of a handle.


class _Start(msgspec.Struct, frozen=True):
    """What a new instance is to be."""

    environ: dict[str, str]
    directory: str
    log_file: str


class Child:
    """One forked instance, held by a handle that never comes to mean another process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:  # It has ended already, and its log says why.
            self._handle = ENDED

    def kill(self) -> None:
        """SIGKILL, at once; nothing if it has ended."""
        if self._handle != ENDED:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def wait_ended(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._handle != ENDED:
            await trio.lowlevel.wait_readable(self._handle)
            os.close(self._handle)
            self._handle = ENDED


class Zygote:
    """The process that instances are forked from."""

    def __init__(self, asks: IO[bytes], answers: trio.lowlevel.FdStream) -> None:
        self._asks, self._answers = asks, answers
        self._lock = trio.Lock()

    async def fork(self, environ: Mapping[str, str], directory: Path, log_file: Path) -> Child:
        """Start an instance; what it logs goes to the end of `log_file`."""
        start = _Start(dict(environ), str(directory), str(log_file))
        async with self._lock:
            with trio.CancelScope(shield=True):  # Else the next to ask would get this answer.
                pid = await self._ask(start)
        return Child(pid)

    async def _ask(self, start: _Start) -> int:
        self._asks.write(msgspec.json.encode(start) + b"\n")
        self._asks.flush()
        line = b""
        with trio.fail_after(ANSWER_S):
            while not line.endswith(b"\n"):
                more = await self._answers.receive_some()
                if not more:
                    raise RuntimeError("the process that instances are forked from has ended")
                line += more
        return int(line)


@asynccontextmanager
async def open_zygote() -> AsyncIterator[Zygote]:
    """A zygote for the time of it; with it all of its children end."""
    command = dying_with_us([sys.executable, "-m", "runtime.chaos.zygote"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220, S603  # Not from one of trio's threads, with which it would end; and every word is ours.
    assert process.stdin is not None
    assert process.stdout is not None
    async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as answers:
        with process:
            try:
                yield Zygote(process.stdin, answers)
            finally:
                process.kill()


def main() -> None:
    """Fork an instance for each line on standard input, and say its process id."""
    from runtime.config import load
    from runtime.instance import run_instance

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody asks how they ended.
    me = os.getpid()
    for line in sys.stdin.buffer:
        start = msgspec.json.decode(line, type=_Start)
        pid = os.fork()
        if not pid:
            _be_instance(start, me, lambda: run_instance(load()))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _be_instance(start: _Start, parent: int, run: Callable[[], int]) -> None:
    """Run it in the place of this process, and never return."""
    code = 70
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(start.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(start.directory)
        os.environ.clear()
        os.environ.update(start.environ)
        code = run()
    except BaseException:  # noqa: BLE001  # It ends here, and its log says why.
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
