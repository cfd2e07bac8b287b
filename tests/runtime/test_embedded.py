"""The embedded nats-server: it serves, it keeps, it belongs to one instance, and it dies with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from runtime import embedded
from runtime.bridge import Address, Bridge
from runtime.chaos.disks import POWER_TOOLS, SMALL_TOOLS, open_power_disk, open_small_disk
from runtime.chaos.tools import missing
from runtime.embedded import EmbeddedServer, ServerEndedError, StoreInUseError
from runtime.jetstream import JetStreamLog, Layout
from runtime.log import BrokerLostError

LAYOUT = Layout(retention_s=60.0, replicas=1, shards={"order": 1})


async def test_it_serves_a_log_that_outlives_it(tmp_path: Path) -> None:
    for expected_seq in (1, 2):
        server = EmbeddedServer(tmp_path / "new" / 'a "strange" store')
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            bridge = Bridge(Address([server.url]))
            await nursery.start(bridge.run)
            with trio.fail_after(5):
                await bridge.wait_connected()
            log = JetStreamLog(bridge)
            await log.prepare(LAYOUT)
            assert await log.append("ORDER.journal.order.0", b"x") == expected_seq
            assert log.payload_bytes_max > 8_000_000
            nursery.cancel_scope.cancel()


def test_a_store_keeps_its_port(tmp_path: Path) -> None:
    assert EmbeddedServer(tmp_path / "a").url == EmbeddedServer(tmp_path / "a").url
    assert EmbeddedServer(tmp_path / "a").url != EmbeddedServer(tmp_path / "b").url


def test_it_syncs_every_append_and_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    config = embedded._config("name", 4222, 8222, tmp_path)
    assert "sync_interval: always" in config
    assert 'listen: "127.0.0.1:4222"' in config


async def test_when_it_is_killed_its_child_ends_abnormally_and_can_start_again(
    tmp_path: Path,
) -> None:
    server = EmbeddedServer(tmp_path)
    with pytest.raises(ServerEndedError, match=r"killed by SIGKILL(?s:.*)Server is ready"):
        await _run_and(server, signal.SIGKILL)
    assert server.pid is None
    with pytest.raises(ServerEndedError, match="ended with exit code"):
        await _run_and(server, signal.SIGTERM)


@pytest.mark.skipif(bool(missing(SMALL_TOOLS)), reason=missing(SMALL_TOOLS) or "nothing")
async def test_a_server_whose_disk_was_full_is_ended_and_the_next_one_stores_again(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOOK_AT_HEALTH_S", 0.1)
    with open_small_disk(megabytes=16) as disk, trio.fail_after(30):
        server = EmbeddedServer(disk.path / "store")
        bridge = Bridge(Address([server.url]))
        await nursery.start(bridge.run)
        log = JetStreamLog(bridge)
        async with trio.open_nursery() as running:
            await running.start(_run_until, server, r"not well.*no space left on device")
            await bridge.wait_connected()
            await log.prepare(LAYOUT)
            disk.fill()
            with pytest.raises(BrokerLostError):  # It never answers, and is ended meanwhile.
                await log.append("ORDER.journal.order.0", bytes(8192))
        disk.make_room()
        disk.fill(leave_bytes=65_536)
        async with trio.open_nursery() as running:
            await running.start(server.run)
            await bridge.wait_connected()
            disk.make_room()  # Only now: what was free at the start is no limit for ever.
            for _ in range(3):
                await log.append("ORDER.journal.order.0", bytes(200_000))
            running.cancel_scope.cancel()


@pytest.mark.skipif(bool(missing(POWER_TOOLS)), reason=missing(POWER_TOOLS) or "nothing")
async def test_a_power_cut_loses_nothing_that_was_acknowledged(nursery: trio.Nursery) -> None:
    with open_power_disk(megabytes=64) as disk, trio.fail_after(30):
        server = EmbeddedServer(disk.path / "store")
        bridge = Bridge(Address([server.url]))
        await nursery.start(bridge.run)
        log = JetStreamLog(bridge)
        for expected_seq in range(1, 30, 10):
            async with trio.open_nursery() as running:
                await running.start(_run_until, server, ".")
                await bridge.wait_connected()
                await log.prepare(LAYOUT)
                disk.settle()
                for seq in range(expected_seq, expected_seq + 10):
                    assert await log.append("ORDER.journal.order.0", bytes(512)) == seq
                assert server.pid is not None
                os.kill(server.pid, signal.SIGSTOP)  # It sees nothing of what happens now.
                disk.cut()
                os.kill(server.pid, signal.SIGKILL)
            disk.restore()


async def _run_until(
    server: EmbeddedServer, why: str, *, task_status: trio.TaskStatus[None]
) -> None:
    """Until it has ended; its log may be on a disk that cannot be read any more."""
    with pytest.raises((ServerEndedError, OSError), match=why):
        await server.run(task_status=task_status)


async def test_cancelling_it_stops_the_server(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        pid = server.pid
        assert pid is not None
        nursery.cancel_scope.cancel()
    assert not _lives(pid)


async def test_a_server_that_will_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.05)
    server = EmbeddedServer(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        nursery.cancel_scope.cancel()
    assert not _lives(pid)


async def test_two_instances_cannot_share_a_store(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STORE_WAIT_S", 0.05)
    first = EmbeddedServer(tmp_path)
    await nursery.start(first.run)
    with pytest.raises(StoreInUseError, match=rf"in use by process {os.getpid()}"):
        await EmbeddedServer(tmp_path).run()
    assert first.pid is not None
    assert _lives(first.pid)


async def test_a_store_is_free_only_when_its_last_server_is_gone(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    first = EmbeddedServer(tmp_path)
    with embedded._opened(tmp_path / "lock") as lock:
        await embedded._lock(lock, tmp_path)
        orphan = first._spawn("orphan", lock)
    try:
        with trio.move_on_after(0.3) as waiting:
            await nursery.start(EmbeddedServer(tmp_path).run)
        assert waiting.cancelled_caught
    finally:
        orphan.kill()
        orphan.wait()
    with trio.fail_after(5):
        await nursery.start(EmbeddedServer(tmp_path).run)


async def test_a_port_taken_by_a_stranger_is_named(tmp_path: Path, nursery: trio.Nursery) -> None:
    first = EmbeddedServer(tmp_path / "a")
    await nursery.start(first.run)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "port").write_text(f"{first.port}\n")
    with trio.fail_after(5), pytest.raises(ServerEndedError, match="address already in use"):
        await nursery.start(EmbeddedServer(tmp_path / "b").run)  # It was never "started".


def test_it_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    program = f"""
import trio
from pathlib import Path
from runtime.chaos.disks import POWER_TOOLS, SMALL_TOOLS, open_power_disk, open_small_disk
from runtime.chaos.tools import missing
from runtime.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(Path({str(tmp_path)!r}))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        print(server.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        while not (line := parent.stdout.readline()).strip().isdigit():
            assert line, "it ended"
        pid = int(line)
        assert _lives(pid)
        assert os.getpgid(pid) != os.getpgid(parent.pid), "Ctrl-C would reach it before us"
        parent.kill()
    deadline = time.monotonic() + 5
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def _run_and(server: EmbeddedServer, kill_with: signal.Signals) -> None:
    ended: list[ServerEndedError] = []
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[None]) -> None:
            try:
                await server.run(task_status=task_status)
            except ServerEndedError as error:
                ended.append(error)

        await nursery.start(run)
        assert server.pid is not None
        os.kill(server.pid, kill_with)
    raise ended[0]


def _lives(pid: int) -> bool:
    """Whether it runs; a zombie, which the system has yet to bury, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
