"""Commands run as a user runs them, and a real `orders run` for them to talk to."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from runtime import embedded
from runtime.cli import main
from runtime.ports import free_port


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Orders = Callable[..., Done]


@dataclass(frozen=True, slots=True)
class Instance:
    """A running instance, as the environment of a command knows it."""

    environ: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://{self.environ['HTTP_BIND']}"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """One `orders run` for a module, on ports and a store of its own."""
    directory = tmp_path_factory.mktemp("instance")
    running = Instance(environ_of(directory))
    launcher = [sys.executable, "-I", "-S", "-c", embedded._DIE_WITH_PARENT, str(os.getpid())]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*launcher, sys.executable, "-m", "runtime"],
            env={**os.environ, **running.environ},
            cwd=directory,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 30
        while not is_ready(running.url):
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.05)
        yield running
    finally:
        process.kill()  # Its nats-server dies with it.
        process.wait()


@pytest.fixture
def orders(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Orders]:
    """Run the command line in this process, in an environment where no instance runs unless one is given."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    alone = environ_of(tmp_path)

    def run(*args: str, **environ: str) -> Done:
        for name, value in {**alone, **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["orders", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, err = capfd.readouterr()
        return Done(code if isinstance(code, int) else 0, out, err)

    yield run
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def on(orders: Orders, instance: Instance) -> Orders:
    """Run the command line where an instance runs."""

    def run(*args: str, **environ: str) -> Done:
        return orders(*args, **{**instance.environ, **environ})

    return run


def environ_of(directory: Path) -> dict[str, str]:
    http, admin = free_port(), free_port()
    return {
        "APP_ENV": "test",
        "LOG_FORMAT": "json",
        "NATS_STORE_DIR": str(directory / "store"),
        "HTTP_BIND": f"127.0.0.1:{http}",
        "ADMIN_BIND": f"127.0.0.1:{admin}",
        "ORDER_SHARDS": "2",
        "INVENTORY_SHARDS": "2",
        "PAYMENT_SHARDS": "1",
    }


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False
