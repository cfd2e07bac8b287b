"""The machine's own tools that make faults: which of them are missing here, and how to run one.

Everything here is quick (milliseconds), so it is called as it is, without a thread: a fault has
happened when the call returns.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

TOOL_TIMEOUT_S: Final = 20.0  # Far above what any of them takes on a machine that is very busy.

_PACKAGES: Final = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "mkfs.ext4": "e2fsprogs",
    "strace": "strace",
}


class ToolError(Exception):
    """A tool refused; its own words are in the message."""


def missing(tools: Iterable[str], *, root: bool = True) -> str:
    """Say what this machine lacks for a fault and how to get it; empty where it lacks nothing."""
    wants = []
    if root and os.geteuid() != 0:
        wants.append("root: run it as root, on a machine or in a container that may be broken")
    packages = sorted({_PACKAGES[tool] for tool in tools if where(tool) is None})
    if packages:
        wants.append(f"{', '.join(packages)}: apt-get install {' '.join(packages)}")
    return "; ".join(wants)


def where(tool: str) -> str | None:
    """The whole path of a tool, for those who start it without a PATH."""
    return shutil.which(tool, path=_path())


def run(*argv: str, stdin: str = "") -> str:
    """Run a tool to its end, and return what it printed.

    Raises:
        ToolError: it ended with another code than 0, or not in time.

    """
    try:
        done = subprocess.run(  # noqa: S603 - Every word of the command is ours.
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            check=False,
            env={**os.environ, "PATH": _path(), "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{' '.join(argv)}: not done after {TOOL_TIMEOUT_S:g} s") from error
    if done.returncode:
        raise ToolError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit {done.returncode}'}")
    return done.stdout


def orphaned(names: Iterable[str], prefix: str) -> Iterator[str]:
    """Those of `names` that were given by a process that is gone: `<prefix><pid>-...`."""
    for name in names:
        pid = name.removeprefix(prefix).partition("-")[0]
        if name.startswith(prefix) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            yield name


def _path() -> str:
    """The PATH with the administrator's folders, which a shell of root may lack."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
