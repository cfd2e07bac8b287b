"""Hosts of their own: they hear each other, until a cable is cut, one way or both; and nothing of them is left."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runtime.chaos import hosts as hosts_module
from runtime.chaos.hosts import NamespaceHost, hosts_missing, open_hosts
from runtime.chaos.nets import Net, apart, lossy, one_way, ring_of_majorities
from runtime.chaos.tools import ToolError, missing, orphaned, run
from runtime.embedded import dying_with_us

needs_hosts = pytest.mark.skipif(bool(hosts_missing()), reason=hosts_missing() or "nothing")
Hosts = Mapping[str, NamespaceHost]
PORT = 4000


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with open_hosts(["a", "b", "c"]) as hosts:
        yield hosts


@pytest.fixture
def net(hosts: Hosts) -> Iterator[Net]:
    net = Net(hosts.values())
    yield net
    net.heal()


@needs_hosts
def test_whole_cables_carry_everything(hosts: Hosts) -> None:
    assert heard(hosts) == {"ab", "ac", "ba", "bc", "ca", "cb"}


@needs_hosts
def test_two_sides_apart_do_not_hear_each_other_until_it_heals(hosts: Hosts, net: Net) -> None:
    a, b, c = hosts.values()
    net.cut(apart([a], [b, c]))
    assert heard(hosts) == {"bc", "cb"}
    assert net.dropped() >= 4, "and it is known that the fault happened"
    net.cut(apart([b], [c]))
    assert heard(hosts) == {"ab", "ba", "ac", "ca"}, "the new cuts replace the old ones"
    net.heal()
    assert len(heard(hosts)) == 6


@needs_hosts
def test_a_cut_one_way_leaves_the_other_way_open(hosts: Hosts, net: Net) -> None:
    a, b, _ = hosts.values()
    net.cut(one_way([a], [b]))
    assert heard(hosts) == {"ac", "ba", "bc", "ca", "cb"}


@needs_hosts
def test_in_the_ring_each_hears_a_majority_and_no_two_the_same(hosts: Hosts, net: Net) -> None:
    net.cut(ring_of_majorities(list(hosts.values())))
    assert heard(hosts) == {"ba", "cb", "ac"}


@needs_hosts
def test_some_packets_get_lost(hosts: Hosts, net: Net) -> None:
    a, b, _ = hosts.values()
    net.cut(lossy([a, b], 30))
    with bound(b) as receiver, bound(a) as sender:
        for _ in range(200):
            sender.sendto(b"x", (b.address, PORT))
        arrived = count_waiting(receiver)
    assert 100 < arrived < 180
    assert net.dropped() == 200 - arrived


@needs_hosts
def test_the_machine_itself_reaches_a_host_that_is_cut_off(hosts: Hosts, net: Net) -> None:
    a, b, c = hosts.values()
    net.cut(apart([a], [b, c]))
    with bound(a) as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (a.address, PORT))
        assert count_waiting(receiver) == 1


@needs_hosts
def test_a_command_on_a_host_keeps_its_process_id(hosts: Hosts) -> None:
    shows_pid = [sys.executable, "-c", "import os; print(os.getpid())"]
    command = dying_with_us(hosts["a"].command(shows_pid))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert int(process.communicate()[0]) == process.pid


@needs_hosts
def test_nothing_is_left_when_the_network_closes(hosts: Hosts) -> None:
    with open_hosts(["x"]) as mine:
        host = mine["x"]
        assert host.address.rpartition(".")[0] != hosts["a"].address.rpartition(".")[0]
        sleeper = subprocess.Popen(host.command(["sleep", "60"]))
        while "sleep" not in Path(f"/proc/{sleeper.pid}/comm").read_text():
            time.sleep(0.01)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not left_of(os.getpid(), but=hosts)


@needs_hosts
def test_what_a_killed_run_left_is_removed_by_the_next(hosts: Hosts) -> None:
    program = """
import time
from runtime.chaos.hosts import open_hosts
with open_hosts(["x", "y"]):
    print("there", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"there\n"
        killed.kill()
    assert len(left_of(killed.pid)) == 5  # Two namespaces, their cables, and the bridge.
    with open_hosts(["z"]):
        assert not left_of(killed.pid)
    assert len(heard(hosts)) == 6, "those of a run that goes on are left alone"


def test_a_tool_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool, path: None if tool in {"nft", "ip"} else tool)
    assert missing(["ip", "nft", "mount"], root=False) == (
        "iproute2, nftables: apt-get install iproute2 nftables"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing(["mount"]).startswith("root: ")


def test_a_tool_that_refuses_is_quoted() -> None:
    with pytest.raises(ToolError, match=r"false: exit 1"):
        run("false")


def test_only_the_dead_have_orphans() -> None:
    names = [f"x-{os.getpid()}-0", "x-4194304-1", "x-strange", "y-4194304-1"]  # Above any pid.
    assert list(orphaned(names, "x-")) == ["x-4194304-1"]


# --- who hears whom ---


def heard(hosts: Hosts) -> set[str]:
    """Of all pairs, those where what the first sends reaches the second."""
    found = set()
    for to in hosts.values():
        with bound(to) as receiver:
            for sender in hosts.values():
                if sender != to:
                    with bound(sender, port=0) as socket_there:
                        socket_there.sendto(sender.name.encode(), (to.address, PORT))
            while (who := receive(receiver)) is not None:
                found.add(f"{who}{to.name}")
    return found


def bound(host: NamespaceHost, port: int = PORT) -> socket.socket:
    """A socket that lives on a host, though this process does not."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(hosts_module.NAMESPACES / host.namespace, os.O_RDONLY)
    try:
        enter(there)
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((host.address, port))
    finally:
        enter(here)
        os.close(here)
        os.close(there)
    return made


def enter(namespace: int) -> None:
    assert ctypes.CDLL(None, use_errno=True).setns(namespace, 0) == 0, ctypes.get_errno()


def receive(receiver: socket.socket) -> str | None:
    """What has arrived; it takes a moment on a machine that is busy."""
    receiver.settimeout(0.02)
    try:
        return receiver.recv(100).decode()
    except TimeoutError:
        return None


def count_waiting(receiver: socket.socket) -> int:
    count = 0
    while receive(receiver) is not None:
        count += 1
    return count


def left_of(pid: int, but: Hosts | None = None) -> set[str]:
    """Namespaces and interfaces that carry the name of a process."""
    everything = {*hosts_module._namespaces(), *hosts_module._links()}
    mine = {name for name in everything if f"{pid}-" in name}
    if but is not None:
        number = next(iter(but.values())).namespace.split("-")[2]
        mine = {name for name in mine if f"{pid}-{number}" not in name}
    return mine
