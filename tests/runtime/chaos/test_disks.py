"""Disks that break: a power cut loses what was not synced and nothing else, a full disk is full, calls fail."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.chaos import disks
from runtime.chaos.disks import injected, open_power_disk, open_small_disk
from runtime.chaos.tools import ToolError, missing

power_lacks, small_lacks, slow_lacks = (
    missing(tools) for tools in (disks.POWER_TOOLS, disks.SMALL_TOOLS, disks.SLOW_TOOLS)
)
needs_power = pytest.mark.skipif(bool(power_lacks), reason=power_lacks or "nothing")
needs_small = pytest.mark.skipif(bool(small_lacks), reason=small_lacks or "nothing")
needs_slow = pytest.mark.skipif(bool(slow_lacks), reason=slow_lacks or "nothing")


@needs_power
def test_a_power_cut_keeps_what_was_synced_and_loses_the_rest() -> None:
    with open_power_disk(64) as disk:
        write(disk.path / "log", b"synced ", sync=True)
        write(disk.path / "log", b"not synced", sync=False)
        write(disk.path / "new", b"not synced", sync=False)
        disk.cut()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            write(disk.path / "log", b"after the cut", sync=True)
        disk.restore()
        assert (disk.path / "log").read_bytes() == b"synced "
        assert not (disk.path / "new").exists()
        write(disk.path / "log", b"again", sync=True)


@needs_power
def test_power_can_be_cut_many_times() -> None:
    with open_power_disk(64) as disk:
        for number in range(5):
            write(disk.path / "log", b"%d" % number, sync=True)
            write(disk.path / "log", b"x", sync=False)
            disk.cut()
            disk.restore()
        assert (disk.path / "log").read_bytes() == b"01234"


@needs_small
def test_a_full_disk_takes_nothing_until_there_is_room() -> None:
    with open_small_disk(4) as disk:
        write(disk.path / "log", b"x", sync=True)
        disk.fill()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            write(disk.path / "log", b"y" * 8192, sync=True)
        disk.make_room()
        write(disk.path / "log", b"z" * 8192, sync=True)
        disk.fill(leave_bytes=1 << 20)
        assert (1 << 20) - 8192 <= disk.free_bytes <= 1 << 20


@needs_slow
def test_calls_fail_or_are_slow_while_it_lasts_and_are_counted(syncer: Path) -> None:
    pid, said = int(syncer.name), syncer
    with injected(pid, disks.SYNCS, "error=EIO") as injection:
        wait_until(lambda: os.strerror(errno.EIO) in said.read_text())
        assert injection.count() > 0
    with injected(pid, disks.SYNCS, "delay_enter=60ms") as injection:
        said.write_text("")
        wait_until(lambda: "slow" in said.read_text())
        assert injection.count() > 0
    said.write_text("")
    wait_until(lambda: "quick" in said.read_text())
    assert os.strerror(errno.EIO) not in said.read_text()


@needs_slow
def test_a_process_that_is_not_there_is_an_error() -> None:
    with (
        pytest.raises(ToolError, match="No such process"),
        injected(4194304, disks.SYNCS, "error=EIO"),
    ):
        pass


@needs_power
def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    program = """
import time
from runtime.chaos.disks import open_power_disk, open_small_disk
with open_power_disk(16) as one, open_small_disk(1) as other:
    print(one.path, other.path, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        paths = [Path(path) for path in killed.stdout.readline().decode().split()]
        killed.kill()
    assert all(path.is_mount() for path in paths)
    with open_power_disk(16) as mine:
        assert not any(path.parent.exists() for path in paths)
        disks.remove_leftovers()
        assert mine.path.is_mount(), "those of a run that goes on are left alone"
    assert not mine.path.parent.exists()
    assert not [loop for loop in loops() if str(paths[0].parent) in loop]


@pytest.fixture
def syncer(tmp_path: Path) -> Iterator[Path]:
    """A process that syncs all the time and says how that went, in a file named as its id."""
    program = f"""
import os, pathlib, time
directory = pathlib.Path({str(tmp_path)!r})
handle = os.open(directory / "x", os.O_CREAT | os.O_WRONLY)
said = directory / str(os.getpid())
while True:
    began = time.monotonic()
    try:
        os.fsync(handle)
        answer = "slow" if time.monotonic() - began > 0.05 else "quick"
    except OSError as error:
        answer = error.strerror
    with said.open("a") as file:
        print(answer, file=file)
    time.sleep(0.005)
"""
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        said = tmp_path / str(process.pid)
        wait_until(said.exists)
        yield said
        process.send_signal(signal.SIGKILL)


def write(path: Path, content: bytes, *, sync: bool) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def loops() -> list[str]:
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [file.read_text() for file in backing]
