"""A measured instance as the load sees it: started, talked to, looked at in /proc, and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import trio

from runtime.bench.frames import Frame, Frames, Kind, frame
from runtime.ports import free_port

START_S = 300.0  # A store of a million orders is read through before it serves.
ANSWER_S = 60.0
STOP_S = 30.0
RECEIVE_BYTES = 256 << 10
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6

ENVIRON: Mapping[str, str] = {
    "LOG_LEVEL": "warning",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.01",
}
TUNABLE = ("ORDER_SHARDS", "INVENTORY_SHARDS", "PAYMENT_SHARDS", "WORKER_POOL_SIZE")
"""Variables that are passed on, so that they can be measured."""


class InstanceDiedError(Exception):
    """The measured process ended, or does not do what it should."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, of the instance and of its broker; and the resident memory of both."""

    at_s: float
    runtime_s: float
    broker_s: float
    rss_mb: float
    broker_rss_mb: float

    @classmethod
    def now(cls, pid: int, broker_pid: int) -> Self:
        memory = rss_mb(pid), rss_mb(broker_pid)
        return cls(time.perf_counter(), cpu_s(pid), cpu_s(broker_pid), *memory)


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) * TICK_S


class Channel:
    """The load's end of the channel."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._frames = Frames()

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def take(self) -> list[Frame]:
        """Wait for at least one frame.

        Raises:
            InstanceDiedError: none will come, or none came in time.
        """
        with trio.move_on_after(ANSWER_S):
            while chunk := await self._stream.receive_some(RECEIVE_BYTES):
                if frames := list(self._frames.feed(chunk)):
                    return frames
            raise InstanceDiedError("the instance has hung up")
        raise InstanceDiedError(f"not a word from the instance for {ANSWER_S:g} s")

    async def take_answer(self) -> Any:
        ((_, _, payload),) = await self.take()
        return msgspec.json.decode(payload)

    async def command(self, name: str) -> Any:
        """Have a command carried out; nothing else may be under way."""
        await self.send(frame(Kind.COMMAND, 0, msgspec.json.encode(name)))
        return await self.take_answer()


@dataclass(frozen=True, slots=True)
class Measured:
    """A running instance, how to talk to it, and how long it took from the start of its process to taking orders."""

    process: "subprocess.Popen[bytes]"
    channel: Channel
    http_port: int
    broker_pid: int
    taking_s: float
    taking_s_without_imports: float
    broker_serving_s: float
    """Of that, until the broker had read its store and served."""

    def usage(self) -> Usage:
        return Usage.now(self.process.pid, self.broker_pid)

    def kill(self) -> None:
        """SIGKILL; its broker dies with it."""
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def measured(
    store: Path, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Measured]:
    """Start an instance on a store, and stop it in the end. Started when it takes orders."""
    http_port, admin_port = free_port(), free_port()
    settings = {
        **{name: os.environ[name] for name in ("PATH", *TUNABLE) if name in os.environ},
        **ENVIRON,
        "NATS_STORE_DIR": str(store),
        "ORDERS_TRACE_FILE": str(store / "traces.jsonl"),
        "HTTP_BIND": f"127.0.0.1:{http_port}",
        "ADMIN_BIND": f"127.0.0.1:{admin_port}",
        **(environ or {}),
    }
    socket_path = store / "bench.socket"
    socket_path.unlink(missing_ok=True)
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(socket_path))
    listener.listen(1)
    log_file = store / "instance.log"
    started_s = time.perf_counter()
    process = _start("runtime.bench.instance", [str(socket_path)], settings, log_file)
    try:
        stream = await _accept(listener, process, log_file)
        async with stream:
            channel = Channel(stream)
            greeting = await channel.take_answer()
            taking_s = time.perf_counter() - started_s
            yield Measured(process, channel, http_port, taking_s=taking_s, **greeting)
    finally:
        listener.close()
        with trio.CancelScope(shield=True):
            await stop(process)


@asynccontextmanager
async def empty_route(server: str) -> AsyncIterator[tuple[int, int]]:
    """A server whose one route does nothing; gives its port and its process id."""
    port = free_port()
    arguments = [str(port), server]
    process = _start("runtime.bench.empty_route", arguments, dict(os.environ), Path(os.devnull))
    try:
        while not await _listens(port):
            if process.poll() is not None:
                raise InstanceDiedError("the server with the empty route did not start")
            await trio.sleep(0.05)
        yield port, process.pid
    finally:
        with trio.CancelScope(shield=True):
            await stop(process)


async def _listens(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


def _start(
    module: str, arguments: list[str], environ: Mapping[str, str], log_file: Path
) -> "subprocess.Popen[bytes]":
    """A python of our own, where the packages are that we run from."""
    root = str(Path(__file__).parents[2])
    with log_file.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - Every word of the command is ours.
            [sys.executable, "-m", module, *arguments],
            env={**environ, "PYTHONPATH": root},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def _accept(
    listener: Any, process: "subprocess.Popen[bytes]", log_file: Path
) -> trio.SocketStream:
    with trio.move_on_after(START_S):
        while process.poll() is None:
            with trio.move_on_after(0.2):
                accepted, _ = await listener.accept()
                return trio.SocketStream(accepted)
    raise InstanceDiedError("\n  ".join(("the measured instance did not start:", *_tail(log_file))))


def _tail(log_file: Path) -> list[str]:
    return log_file.read_text(errors="replace").splitlines()[-10:]


async def stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL where that does not help."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with trio.move_on_after(STOP_S):
        while process.poll() is None:  # noqa: ASYNC110 - The end of a process is no event.
            await trio.sleep(0.02)
    process.kill()
    process.wait()
