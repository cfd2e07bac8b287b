"""One `orders run` of a campaign, kept running as a platform would: what ends without being told to starts again."""

import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from runtime.chaos.host import LOOPBACK, Host
from runtime.chaos.http import JSON, Answer, Http, NoAnswerError
from runtime.chaos.process import Process, inherited, wait_for
from runtime.ports import free_port

EXIT_SUPERSEDED = 78
EXIT_HUNG = 70
READY_S = 90.0
LOOK_AGAIN_S = 0.02
RESTART_PAUSE_S = 0.5  # What a platform grants a process that ends by itself again and again.


class Instance:
    """The process, its two addresses and what it has logged; `environ` and `prefix` hold from the next start on.

    `prefix` is put before its command, for what limits a process from without (prlimit, say).
    """

    def __init__(
        self,
        directory: Path,
        http: Http,
        environ: Mapping[str, str],
        *,
        host: Host = LOOPBACK,
        name: str = "instance",
    ) -> None:
        self.host = host
        self.http = f"{host.address}:{free_port()}"
        self.admin = f"{host.address}:{free_port()}"
        self.trace_file = directory / f"{name}.traces.jsonl"
        self.prefix: Sequence[str] = ()
        self.ends: list[int] = []
        """The exit codes of its ends, those that were asked for apart."""
        self.environ = {
            "HOME": str(directory),
            "APP_ENV": "test",
            "LOG_FORMAT": "json",
            "FAULTS": "on",
            "INSTANCE_ID": name,
            "NATS_STORE_DIR": str(directory / name),
            "HTTP_BIND": self.http,
            "ADMIN_BIND": self.admin,
            "PAYMENT_CALL_TIMEOUT": "1s",
            "OTEL_TRACES_EXPORTER": "console",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
            "ORDERS_TRACE_FILE": str(self.trace_file),
            **({} if host is LOOPBACK else {"INSECURE": "on"}),
            **environ,
        }
        self._http = http
        self._wanted = False
        self.process = Process((), log_file=directory / f"{name}.log", host=host)

    def start(self) -> None:
        """Start it; from now on it is to run."""
        self.process.argv = [*self.prefix, sys.executable, "-m", "runtime", "run"]
        self.process.environ = inherited() | self.environ
        self._wanted = True
        self.process.start()

    async def keep(self) -> None:
        """Start it again whenever it has ended and is to run; for ever."""
        while True:
            if self._wanted and not self.process.running:
                code = self.process.exit_code
                assert code is not None
                self.ends.append(code)
                if code != -signal.SIGKILL:
                    await trio.sleep(RESTART_PAUSE_S)
                if self._wanted and not self.process.running:
                    self.start()
            await trio.sleep(LOOK_AGAIN_S)

    async def kill(self) -> None:
        """As `kill -9` does. Whoever keeps it starts it again."""
        await self.process.kill()

    async def end(self) -> None:
        """As `kill -9` does, and let it be."""
        self._wanted = False
        await self.process.kill()

    def release(self) -> None:
        """Let it be, whatever becomes of it."""
        self._wanted = False

    async def stop(self) -> int:
        """SIGTERM, and let it be; returns its exit code."""
        self._wanted = False
        return await self.process.stop()

    async def wait_ready(self, within_s: float = READY_S) -> None:
        """Wait until it takes orders.

        Raises:
            trio.TooSlowError: it does not.
        """
        with trio.fail_after(within_s):
            await wait_for(partial(self.says_ok, "/readyz"), LOOK_AGAIN_S)

    async def says_ok(self, path: str) -> bool:
        try:
            return (await self._http.ask("GET", self.http, path)).status == 200
        except NoAnswerError:
            return False

    async def administer(self, method: str, path: str, told: object = None) -> Answer:
        """Ask on the operator's address.

        Raises:
            NoAnswerError: nobody is there, or nobody knows.
        """
        body = b"" if told is None else msgspec.json.encode(told)
        return await self._http.ask(method, self.admin, path, body, JSON if body else ())

    async def inject(self, point: str, action: str, **more: Any) -> str | None:
        """Arm a fault; returns its id, or None where the instance is not there to take it."""
        fault = {"point": point, "action": action, **more}
        try:
            answer = await self.administer("POST", "/faults", fault)
        except NoAnswerError:
            return None
        return str(answer.json["id"]) if answer.status == 201 else None

    async def fired(self, fault_id: str) -> int:
        """How often an armed fault has happened; 0 where nobody can say."""
        try:
            armed = (await self.administer("GET", "/faults")).json["armed"]
        except (NoAnswerError, KeyError):
            return 0
        return sum(one["fired"] for one in armed if one["id"] == fault_id)

    @property
    def log_file(self) -> Path:
        return self.process.log_file

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Every line of its log, over all its starts, about this event."""
        needle = f'"{event}"'.encode()
        if not self.log_file.exists():
            return []
        with self.log_file.open("rb") as lines:
            found = [msgspec.json.decode(line) for line in lines if needle in line]
        return [line for line in found if line.get("event") == event]
