"""The client of one order in a sweep: asks until it is answered, and with the same key again after a kill."""

from typing import Any, Final

import msgspec
import trio

from runtime.audit import Op
from runtime.chaos.sweep_ground import Ground, Request
from runtime.chaos.sweep_orders import Scenario
from runtime.desk_types import order_id_for

ACCEPTED: Final = 202
FINISHED: Final = 201
CANCELLING: Final = frozenset({200, 202, 409})  # 409: it came too late.


class OddAnswerError(Exception):
    """A request about an order was answered as none may be."""


class Client:
    def __init__(self, ground: Ground, scenario: Scenario, key: str) -> None:
        self._ground = ground
        self._order_id = order_id_for(key)
        self._about = {"key": key, "order_id": self._order_id}
        self._placing = {
            **self._about,
            "currency": "GBP",
            "token": scenario.token,
            "total_minor": scenario.total_minor,
            "items": scenario.lines,
        }
        self._body = msgspec.json.encode(scenario.body)
        self._key = ("Idempotency-Key", key)

    async def place(self) -> None:
        """Place the order; from here on it must not get lost."""
        await self._post()

    async def place_and_wait(self) -> dict[str, Any]:
        """The same request with the same key, until the answer is the final one."""
        while True:
            status, told = await self._post(("Prefer", "wait=3"))
            if status == FINISHED:
                return told

    async def find(self) -> None:
        """Look the order up: it was accepted, so it is there whatever has happened since."""
        path = f"/orders/{self._order_id}"
        answer = await self._ground.insist(Request(Op.READ, "GET", path, fields=self._about))
        if answer.status != 200:
            raise OddAnswerError(f"it was accepted, and then looked up: {answer.status}")

    async def cancel_once(self, moment: trio.Event) -> None:
        """Change one's mind at that moment."""
        await moment.wait()
        path = f"/orders/{self._order_id}/cancel"
        answer = await self._ground.insist(Request(Op.CANCEL, "POST", path, fields=self._about))
        if answer.status not in CANCELLING:
            raise OddAnswerError(f"its cancellation was answered {answer.status}")

    async def _post(self, *headers: tuple[str, str]) -> tuple[int, dict[str, Any]]:
        request = Request(
            Op.PLACE, "POST", "/orders", self._body, (self._key, *headers), self._placing
        )
        answer = await self._ground.insist(request)
        if answer.status not in (ACCEPTED, FINISHED):
            raise OddAnswerError(f"it was answered {answer.status}: {answer.body!r}")
        return answer.status, answer.json
