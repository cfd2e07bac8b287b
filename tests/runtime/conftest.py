"""A real nats-server for the tests of a worker, killed and started at will."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import embedded


class NatsServer:
    """A nats-server as the embedded one is configured, in the hands of a test."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, extra_config: str = "") -> None:
        if self._process is not None:
            return
        config_file = self._directory / "nats-server.conf"
        config = embedded._config("test", self.port, self._directory)
        config_file.write_text(f"{config}{extra_config}\n")
        launcher = [sys.executable, "-I", "-S", "-c", embedded._DIE_WITH_PARENT, str(os.getpid())]
        with (self._directory / "nats-server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*launcher, embedded._server_path(), "-c", str(config_file)],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and probe.recv(4) == b"INFO":
                    return
            time.sleep(0.01)
        raise AssertionError((self._directory / "nats-server.log").read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)


@pytest.fixture(scope="session")
def _session_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@pytest.fixture
def nats_server(_session_nats_server: NatsServer) -> NatsServer:
    """The worker's server, running, with whatever earlier tests left in its store."""
    _session_nats_server.start()
    return _session_nats_server
