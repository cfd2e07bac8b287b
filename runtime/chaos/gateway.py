"""The payment provider's process in the hands of a campaign: its trouble, and its ledger."""

from pathlib import Path
from typing import Any

import msgspec
import trio

from runtime.chaos import gateway_process
from runtime.chaos.gateway_process import Trouble
from runtime.chaos.host import LOOPBACK, Host
from runtime.chaos.http import JSON, Http, NoAnswerError
from runtime.chaos.process import Process, wait_for
from runtime.ports import free_port
from runtime.simulator_ledger import Line

READY_S = 30.0


class GatewayProcess:
    """Kill it and start it again: what it has booked is in `ledger_file`."""

    def __init__(self, directory: Path, http: Http, host: Host = LOOPBACK) -> None:
        self.address = f"{host.address}:{free_port()}"
        self.url = f"http://{self.address}"
        self.ledger_file = directory / "payments.jsonl"
        name, _, port = self.address.rpartition(":")
        self.process = Process(
            gateway_process.command(name, int(port), self.ledger_file),
            log_file=directory / "gateway.log",
            host=host,
        )
        self._http = http

    def start(self) -> None:
        self.process.start()

    async def kill(self) -> None:
        await self.process.kill()

    async def wait_serving(self, within_s: float = READY_S) -> None:
        with trio.fail_after(within_s):
            await wait_for(self.is_serving)

    async def is_serving(self) -> bool:
        return await self._told() is not None

    async def behave(self, trouble: Trouble | None = None) -> None:
        """Misbehave like this from now on; well, if nothing is said.

        Raises:
            NoAnswerError: nobody knows whether it will.
        """
        body = msgspec.json.encode(trouble or Trouble())
        await self._http.ask("PUT", self.address, "/trouble", body, JSON)

    async def happened(self) -> dict[str, int]:
        """How often each trouble has happened since it was started."""
        told = await self._told()
        return dict(told["happened"]) if told else {}

    def ledger(self) -> list[Line]:
        """Every movement of money, oldest first."""
        if not self.ledger_file.exists():
            return []
        with self.ledger_file.open("rb") as lines:
            return [msgspec.json.decode(line, type=Line) for line in lines if line.endswith(b"\n")]

    async def _told(self) -> Any:
        try:
            return (await self._http.ask("GET", self.address, "/trouble")).json
        except NoAnswerError:
            return None
