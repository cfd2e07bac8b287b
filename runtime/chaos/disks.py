"""Disks that break: one whose power can be cut, one that is small, and system calls that are slow or fail.

All of it is for a broker's store. Names carry the process that made them, so that what a killed
run left behind is removed by the next one.
"""

import fcntl
import itertools
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from runtime.chaos.tools import TOOL_TIMEOUT_S, ToolError, orphaned, run

PREFIX: Final = "orders-disk-"
POWER_TOOLS: Final = ("mkfs.ext4", "mount", "umount")
SMALL_TOOLS: Final = ("mount", "umount")
SLOW_TOOLS: Final = ("strace",)
WRITES: Final = "write,pwrite64"
SYNCS: Final = "fsync,fdatasync"
LOOK_AGAIN_S: Final = 0.01

_FS_IOC_SHUTDOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = 2  # Nothing more reaches the disk, not even the journal of the file system.
_disks = itertools.count()


class PowerDisk:
    """An ext4 of its own, whose power can be cut: what was not synced by then is gone.

    Its users have to be killed between `cut` and `restore`, as a power cut would.
    """

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.path = directory / "disk"
        self._image = directory / "disk.img"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(megabytes << 20)
        no_more_work = "lazy_itable_init=0,lazy_journal_init=0"
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", no_more_work, str(self._image))
        self._mount()

    def settle(self) -> None:
        """Sync everything, as time does: what is lost in a power cut was written a moment before."""
        run("sync", "-f", str(self.path))

    def cut(self) -> None:
        """Cut the power: from here on every write to it is an error, and nothing is kept."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def restore(self) -> None:
        """Switch the power on again; the file system recovers what had been synced."""
        _unmount(self.path)
        self._mount()

    def close(self) -> None:
        _unmount(self.path)
        self._image.unlink()

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.path))  # umount frees the loop device


class SmallDisk:
    """A file system in memory of so many megabytes, to be filled up and emptied again."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.path = directory / "disk"
        self.path.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.path))

    @property
    def free_bytes(self) -> int:
        figures = os.statvfs(self.path)
        return figures.f_bavail * figures.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Put in so much ballast that no more than `leave_bytes` are free.

        Its user may write at the same time, and give room back: fill it again and again.
        """
        with self._ballast.open("ab") as ballast:
            more = self.free_bytes - leave_bytes
            while more > 0:
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, more)
                except OSError:  # Somebody else has taken some of it.
                    more //= 2
                else:
                    more = self.free_bytes - leave_bytes

    def make_room(self) -> None:
        """Take the ballast out."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        _unmount(self.path)

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


@contextmanager
def open_power_disk(megabytes: int = 512) -> Iterator[PowerDisk]:
    with _own_directory() as directory:
        disk = PowerDisk(directory, megabytes)
        try:
            yield disk
        finally:
            disk.close()


@contextmanager
def open_small_disk(megabytes: int = 24) -> Iterator[SmallDisk]:
    with _own_directory() as directory:
        disk = SmallDisk(directory, megabytes)
        try:
            yield disk
        finally:
            disk.close()


def remove_leftovers() -> None:
    """Unmount and remove the disks of runs that were killed; their brokers died with them."""
    root = Path(tempfile.gettempdir())
    names = [entry.name for entry in root.iterdir()]
    for name in orphaned(names, PREFIX):
        _remove(root / name)


class Injection:
    """System calls of a process that take longer, or fail, until it is stopped."""

    def __init__(self, pid: int, calls: str, how: str, directory: Path) -> None:
        self._trace = directory / f"strace-{pid}"
        said = directory / f"strace-{pid}.said"
        argv = ["strace", "-f", "-p", str(pid), "-o", str(self._trace), "-e", f"trace={calls}"]
        with said.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - Every word of the command is ours.
                [*argv, "-e", f"inject={calls}:{how}"], stdin=subprocess.DEVNULL, stderr=output
            )
        deadline = time.monotonic() + TOOL_TIMEOUT_S
        while "attached" not in said.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ToolError(f"{' '.join(argv)}: {said.read_text()}")
            time.sleep(LOOK_AGAIN_S)

    def count(self) -> int:
        """How many calls were slow, or failed, so far."""
        traced = self._trace.read_text(errors="replace")
        return traced.count("(INJECTED)") + traced.count("(DELAYED)")

    def stop(self) -> None:
        """Let go of the process; if we are killed instead, it is let go of as well."""
        self._process.terminate()
        self._process.wait(TOOL_TIMEOUT_S)


@contextmanager
def injected(pid: int, calls: str, how: str) -> Iterator[Injection]:
    """Make these system calls of a process slow (`delay_enter=50ms`) or fail (`error=EIO`).

    `how` is in strace's words.
    """
    with tempfile.TemporaryDirectory() as directory:
        injection = Injection(pid, calls, how, Path(directory))
        try:
            yield injection
        finally:
            injection.stop()


@contextmanager
def _own_directory() -> Iterator[Path]:
    remove_leftovers()
    directory = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}-{next(_disks)}"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _remove(directory: Path) -> None:
    with suppress(ToolError, OSError):  # Another run may be removing the same leftovers.
        if os.path.ismount(directory / "disk"):
            _unmount(directory / "disk")
        shutil.rmtree(directory)


def _unmount(path: Path) -> None:
    """Unmount it as soon as the last of its users, who was killed a moment ago, is gone."""
    deadline = time.monotonic() + TOOL_TIMEOUT_S
    while True:
        try:
            run("umount", str(path))
        except ToolError as error:
            if "busy" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(LOOK_AGAIN_S)
        else:
            return
