"""Hosts on one machine: a network namespace each, on a bridge of their own, under 10.231.x.0/24.

The machine itself is at 10.231.x.1 and reaches every host, whatever is cut between them.

Names carry the process that made them (`orders-<pid>-...`), so two runs never meet, and what a
killed run left behind is removed by the next one.
"""

import fcntl
import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.chaos.tools import ToolError, missing, orphaned, run, where

NAMESPACES: Final = Path("/run/netns")
PREFIX: Final = "orders-"
TOOLS: Final = ("ip", "nft", "nsenter")

_networks = itertools.count()


@dataclass(frozen=True, slots=True)
class NamespaceHost:
    """One namespace: a process that runs there has the network of a machine of its own."""

    name: str
    namespace: str
    address: str

    def command(self, argv: Sequence[str]) -> list[str]:
        """The same command, run on this host; the process keeps its id.

        Not by `ip netns exec`, which also gives it mounts of its own: those would keep a disk
        alive that has been taken away from everybody else.
        """
        return [where("nsenter") or "nsenter", f"--net={NAMESPACES / self.namespace}", "--", *argv]


def hosts_missing() -> str:
    """Say what this machine lacks for hosts of their own, and how to get it."""
    return missing(TOOLS)


@contextmanager
def open_hosts(names: Sequence[str]) -> Iterator[Mapping[str, NamespaceHost]]:
    """Make a network with these hosts on it; it goes when the block ends."""
    remove_leftovers()
    mark = f"{os.getpid()}-{next(_networks)}"
    bridge = f"ob{mark}"
    try:
        with _alone():
            network = _free_network()
            run("ip", "link", "add", bridge, "type", "bridge")
            run("ip", "address", "add", f"{network}.1/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        hosts = {}
        for number, name in enumerate(names):
            host = NamespaceHost(name, f"{PREFIX}{mark}-{name}", f"{network}.{number + 2}")
            _plug_in(host, bridge, f"ov{mark}-{number}")
            hosts[name] = host
        yield hosts
    finally:
        for namespace in _namespaces():
            if namespace.startswith(f"{PREFIX}{mark}-"):
                _remove_namespace(namespace)
        _remove_link(bridge)


def remove_leftovers() -> None:
    """Remove the namespaces and bridges of runs that were killed."""
    for namespace in orphaned(_namespaces(), PREFIX):
        _remove_namespace(namespace)
    for link in [*orphaned(_links(), "ov"), *orphaned(_links(), "ob")]:
        _remove_link(link)


def _plug_in(host: NamespaceHost, bridge: str, cable: str) -> None:
    inside = ("ip", "-netns", host.namespace)
    run("ip", "netns", "add", host.namespace)
    run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    run("ip", "link", "set", cable, "master", bridge, "up")
    run(*inside, "address", "add", f"{host.address}/24", "dev", "eth0")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "link", "set", "eth0", "up")


def _remove_namespace(namespace: str) -> None:
    """End what still runs there, since that would keep it alive, and remove it with its cable."""
    with suppress(ToolError):  # Another run may be removing the same leftovers.
        for pid in run("ip", "netns", "pids", namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        run("ip", "netns", "delete", namespace)


def _remove_link(link: str) -> None:
    with suppress(ToolError):  # It went with its namespace, or was never made.
        run("ip", "link", "delete", link)


def _namespaces() -> list[str]:
    return [entry.name for entry in NAMESPACES.iterdir()] if NAMESPACES.is_dir() else []


def _links() -> list[str]:
    return [entry.name for entry in Path("/sys/class/net").iterdir()]


def _free_network() -> str:
    """The first three numbers of a network that nobody on this machine uses."""
    used = set(re.findall(r"10\.231\.(\d+)\.", run("ip", "-oneline", "-4", "address")))
    free = next((number for number in range(256) if str(number) not in used), None)
    if free is None:
        raise ToolError("all of 10.231.0.0/16 is in use: remove some bridges (`ip link`)")
    return f"10.231.{free}"


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other runs from choosing the same network at the same moment."""
    with (Path(tempfile.gettempdir()) / "orders-hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
