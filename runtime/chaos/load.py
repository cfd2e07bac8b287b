"""The customers of a campaign: orders arrive at a rate, whatever becomes of those before (an open loop).

A customer repeats a request with its key until there is a definite answer, and writes down every attempt. What the
client saw is all that this file knows; it is held against the log and the ledger afterwards.
"""

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import trio

from actors.order_state import TERMINAL
from runtime.audit.journal import Attempt, Op, Told
from runtime.chaos.http import JSON, Answer, Http, NoAnswerError
from runtime.chaos.process import wait_for
from runtime.chaos.shopping import Wish, wish

PATIENCE_S = 4.0  # Above every bound that an answer has to keep, so that a hang is seen as one.
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 1.0
NOT_NOW = frozenset({408, 425, 429})
LOOKED_AT_MAX = 500  # Newest orders that are asked for one by one before a run counts as quiet.
LOOK_AGAIN_S = 0.25
CONNECTIONS_MAX = 64
CUSTOMERS_MAX = 5_000  # Beyond, nobody new arrives: a broken run ends with what it has.


@dataclass(slots=True)
class Accepted:
    """An order that its client was told is accepted; `status` is the newest that it was told."""

    wish: Wish
    status: str


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for, as HTTP has it and as the journal has it."""

    op: Op
    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


class Load:
    """Customers of the instance at `address`, which is asked for at every attempt.

    `rate` orders a second arrive, from the next one on; with `sku` everybody orders that one alone.
    """

    def __init__(
        self,
        http: Http,
        address: Callable[[], str],
        journal_file: Path,
        *,
        seed: int,
        rate: float,
    ) -> None:
        self.rate = rate
        self.sku: str | None = None
        self.attempts: list[Attempt] = []
        self.accepted: dict[str, Accepted] = {}
        self.answers: Counter[int] = Counter()
        self.begun = 0
        self.under_way = 0
        self._http, self._address, self._seed = http, address, seed
        self._connections = trio.CapacityLimiter(CONNECTIONS_MAX)
        self._encode = msgspec.json.Encoder().encode
        self._journal = journal_file.open("ab")
        self.heard_s: list[float] = []  # When acceptances were heard, monotonic and rising,
        self._sent_s: list[float] = []  # and when each of them was asked for.
        self._pauses = Random(seed)  # noqa: S311  # Spreads retries.
        self._closing = False
        self._gives_up = trio.CancelScope()

    # --- the run ---

    async def run(self) -> None:
        """Let customers arrive until `stop`, and serve each to the end."""
        with self._gives_up:
            async with trio.open_nursery() as nursery:
                next_s = trio.current_time()
                while self.is_open:
                    if self.under_way < CUSTOMERS_MAX:
                        nursery.start_soon(self._serve, wish(self._seed, self.begun, self.sku))
                        self.begun += 1
                        self.under_way += 1
                    next_s = max(next_s + 1 / self.rate, trio.current_time() - 1)
                    await trio.sleep_until(next_s)

    def stop(self) -> None:
        """Let nobody new in."""
        self._closing = True

    async def finish(self, within_s: float) -> bool:
        """Wait until every customer has a definite answer; False if the time ran out first."""
        self.stop()
        with trio.move_on_after(within_s):
            await self._wait(lambda: not self.under_way)
        is_done = not self.under_way
        self._gives_up.cancel()
        return is_done

    async def wait_begun(self, count: int) -> None:
        """Wait until so many orders have been asked for."""
        await self._wait(lambda: self.begun >= count)

    def close(self) -> None:
        self._journal.close()

    async def stock(self, admin: str, levels: Mapping[str, int]) -> None:
        """Put so many units of each on the shelf."""
        body = self._encode(dict(levels))
        at_ms = _now_ms()
        await wait_for(partial(self._is_stocked, admin, body), PAUSE_MAX_S)
        for sku, on_hand in levels.items():
            stocked = _Request(Op.STOCK, "PUT", "/stock", fields={"sku": sku, "on_hand": on_hand})
            self._note(stocked, Answer(200, {}, b""), at_ms, 0.0)

    async def _is_stocked(self, admin: str, body: bytes) -> bool:
        try:
            answer = await self._http.ask("PUT", admin, "/stock", body, JSON, within_s=PATIENCE_S)
        except NoAnswerError:
            return False
        return answer.status < 300

    # --- what a campaign wants to know ---

    @property
    def connections(self) -> int:
        """How many requests may be under way at a time."""
        return int(self._connections.total_tokens)

    @connections.setter
    def connections(self, most: int) -> None:
        self._connections.total_tokens = most

    @property
    def is_open(self) -> bool:
        """Whether new customers still come."""
        return not self._closing

    def attempts_between(self, from_ms: int, until_ms: int) -> Iterator[Attempt]:
        """Attempts sent in a span of wall-clock time."""
        return (one for one in self.attempts if from_ms < one.at_ms < until_ms)

    def first_accept_after(self, since_s: float) -> float | None:
        """When the first acceptance was heard that was asked for after a moment (both monotonic)."""
        for place in range(bisect_right(self.heard_s, since_s), len(self.heard_s)):
            if self._sent_s[place] >= since_s:
                return self.heard_s[place]
        return None

    async def wait_accept(self, since_s: float, within_s: float) -> float | None:
        """The same, once there is one; None if the time ran out first."""
        with trio.move_on_after(within_s):
            await self._wait(lambda: self.first_accept_after(since_s) is not None)
        return self.first_accept_after(since_s)

    async def wait_quiet(self, admin: str, within_s: float) -> bool:
        """Wait until nothing is reserved and the newest orders are terminal; False if the time ran out first."""
        with trio.move_on_after(within_s):
            for order_id in list(self.accepted)[: -LOOKED_AT_MAX - 1 : -1]:
                while self.accepted[order_id].status not in TERMINAL:
                    await self.read(order_id)
                    if self.accepted[order_id].status not in TERMINAL:
                        await trio.sleep(LOOK_AGAIN_S)
            return await wait_for(partial(self._is_unreserved, admin), LOOK_AGAIN_S)
        return False

    async def _is_unreserved(self, admin: str) -> bool:
        try:
            answer = await self._http.ask("GET", admin, "/stock", within_s=PATIENCE_S)
        except NoAnswerError:
            return False
        if answer.status != 200:
            return False
        return not any(level["reserved"] for level in answer.json.values())

    async def _wait(self, is_so: Callable[[], bool]) -> None:
        async def look() -> bool:
            return is_so()

        await wait_for(look)

    # --- one customer ---

    async def _serve(self, wanted: Wish) -> None:
        try:
            order_id = await self._place(wanted)
            if order_id is None:
                return
            if wanted.cancel_after_s is not None:
                await trio.sleep(wanted.cancel_after_s)
                await self._cancel(order_id)
            if wanted.reads:
                for pause_s in (0, 0.1, 0.5):
                    await trio.sleep(pause_s)
                    await self.read(order_id)
        finally:
            self.under_way -= 1

    async def _place(self, wanted: Wish) -> str | None:
        """The order's id; None where it was refused for good."""
        fields = {
            "key": wanted.key,
            "currency": wanted.body["currency"],
            "total_minor": wanted.total_minor,
            "items": wanted.lines,
            "token": wanted.body["payment_token"],
        }
        headers = (*JSON, ("Idempotency-Key", wanted.key))
        body = self._encode(wanted.body)
        answer = await self._insist(_Request(Op.PLACE, "POST", "/orders", body, headers, fields))
        if answer.status >= 300:
            return None
        told = answer.json
        self.accepted[told["order_id"]] = Accepted(wanted, told["status"])
        return str(told["order_id"])

    async def _cancel(self, order_id: str) -> None:
        path = f"/orders/{order_id}/cancel"
        await self._insist(_Request(Op.CANCEL, "POST", path, fields=self._about(order_id)))

    async def read(self, order_id: str) -> None:
        """Ask for an accepted order, and keep what is said of it."""
        path = f"/orders/{order_id}"
        answer = await self._insist(_Request(Op.READ, "GET", path, fields=self._about(order_id)))
        if answer.status == 200:
            self.accepted[order_id].status = answer.json["status"]

    def _about(self, order_id: str) -> Mapping[str, Any]:
        return {"key": self.accepted[order_id].wish.key, "order_id": order_id}

    async def _insist(self, request: _Request, address: str | None = None) -> Answer:
        """Send the same request until there is a definite answer."""
        pause_s = PAUSE_MIN_S
        while True:
            answer = await self._once(request, address or self._address())
            if answer is not None and _outcome(answer) is not Told.UNKNOWN:
                return answer
            asked_s = answer.retry_after_s if answer else None
            await trio.sleep(min(asked_s or pause_s, PAUSE_MAX_S) * self._pauses.uniform(0.5, 1))
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _once(self, request: _Request, address: str) -> Answer | None:
        """Send it once, and write down what came of it."""
        answer = None
        async with self._connections:
            at_ms, sent_s = _now_ms(), trio.current_time()
            try:
                answer = await self._http.ask(
                    request.method,
                    address,
                    request.path,
                    request.body,
                    request.headers,
                    within_s=PATIENCE_S,
                )
            except NoAnswerError:
                pass
            finally:  # The run may be over; what was sent has been sent all the same.
                heard_s = trio.current_time()
                self._note(request, answer, at_ms, (heard_s - sent_s) * 1000)
        if request.op is Op.PLACE and answer is not None and answer.status < 300:
            self._sent_s.append(sent_s)
            self.heard_s.append(heard_s)
        return answer

    def _note(self, request: _Request, answer: Answer | None, at_ms: int, took_ms: float) -> None:
        code = answer.status if answer else 0
        self.answers[code] += 1
        told = answer.json if answer is not None and code < 300 and answer.body else {}
        attempt = Attempt(
            op=request.op,
            at_ms=at_ms,
            took_ms=round(took_ms, 3),
            outcome=_outcome(answer),
            code=code,
            **{
                **request.fields,
                **{name: told[name] for name in ("order_id", "status", "version") if name in told},
            },
        )
        self.attempts.append(attempt)
        self._journal.write(self._encode(attempt) + b"\n")


def _outcome(answer: Answer | None) -> Told:
    if answer is None or answer.status >= 500 or answer.status in NOT_NOW:
        return Told.UNKNOWN
    return Told.ACCEPTED if answer.status < 300 else Told.REFUSED


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
