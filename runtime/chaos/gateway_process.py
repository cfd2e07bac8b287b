"""The payment provider of a campaign: a process of its own with a ledger of its own, that misbehaves on request.

`python -m runtime.chaos.gateway_process HOST PORT LEDGER` serves the gateway contract. `PUT /trouble` says how it
behaves from then on (see `Trouble`); `GET /trouble` says that, and how often each trouble has happened.
"""

import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import trio

from runtime.gateway_contract import Reply, Request
from runtime.simulator import Simulator
from runtime.simulator_http import serve
from runtime.simulator_ledger import Ledger, Line, open_ledger

HANG_S = 60.0  # Longer than anyone waits for one call.


class Trouble(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the provider misbehaves. The first three are chances, drawn anew for each request that moves money."""

    hangs: float = 0.0
    """It does what it is asked, and never answers."""
    fails: float = 0.0
    """It does what it is asked, and answers 500."""
    refuses: float = 0.0
    """It does nothing, and answers 503."""
    delay_s: float = 0.0
    """Every request is carried out at once, and answered so much later."""
    forgets_s: float = 0.0
    """An idempotency key older than that is a new one to it; 0 for never."""


def main() -> None:
    host, port, ledger = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    trio.run(_serve, host, int(port), Path(ledger))


async def _serve(host: str, port: int, path: Path) -> None:
    with open_ledger(path) as ledger:
        memory = ForgetfulLedger(ledger)
        await serve(Troubled(Simulator(memory), memory), host=host, port=port)


class ForgetfulLedger(Ledger):
    """A ledger whose keys can be forgotten; what was booked stays booked."""

    def __init__(self, kept: Ledger, now_ms: Callable[[], int] | None = None) -> None:
        super().__init__(kept.lines)
        self.forgets_s = 0.0
        self._kept = kept
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)

    def append(self, line: Line) -> None:
        self._kept.append(line)
        super().append(line)

    def by_key(self, key: str) -> Line | None:
        line = super().by_key(key)
        if line and self.forgets_s and self._now_ms() - line.at_ms > self.forgets_s * 1000:
            return None
        return line


class Troubled:
    """A provider around the simulator: what it books is the simulator's doing, what one hears of it is not always."""

    def __init__(
        self, simulator: Simulator, memory: ForgetfulLedger, rng: random.Random | None = None
    ) -> None:
        self._simulator, self._memory = simulator, memory
        self._rng = rng or random.Random()  # noqa: S311  # It keeps no secret.
        self._trouble = Trouble()
        self._happened: Counter[str] = Counter()

    async def send(self, request: Request) -> Reply:
        if request.path == "/trouble":
            return self._control(request)
        trouble = self._trouble
        moves_money = request.method == "POST"
        if moves_money and self._happens("refuses", trouble.refuses):
            return Reply(503, b'{"code":"unavailable"}')
        reply = await self._simulator.send(request)
        if moves_money and self._happens("hangs", trouble.hangs):
            await trio.sleep(HANG_S)
        if moves_money and self._happens("fails", trouble.fails):
            return Reply(500, b'{"code":"internal_error"}')
        if trouble.delay_s:
            self._happened["delays"] += 1
            await trio.sleep(trouble.delay_s)
        return reply

    def _happens(self, what: str, chance: float) -> bool:
        happens = self._rng.random() < chance
        self._happened[what] += happens
        return happens

    def _control(self, request: Request) -> Reply:
        if request.method == "PUT":
            try:
                self._trouble = msgspec.json.decode(request.body, type=Trouble)
            except ValueError as error:
                return Reply(422, msgspec.json.encode({"code": str(error)}))
            self._memory.forgets_s = self._trouble.forgets_s
        told = {"trouble": self._trouble, "happened": dict(self._happened)}
        return Reply(200, msgspec.json.encode(told))


def command(host: str, port: int, ledger: Path) -> Sequence[str]:
    """How this process is started."""
    return [sys.executable, "-m", __name__, host, str(port), str(ledger)]


if __name__ == "__main__":
    main()
