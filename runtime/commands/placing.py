"""Places what a file asks for: several orders at a time, each repeated with its key until it is answered, and counted.

An answer may be lost, but an order is never placed twice: its Idempotency-Key is the same for every attempt.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import trio

from runtime.commands.client import problem_in
from runtime.desk_types import order_id_for
from runtime.order_files import Placement, Withdrawal
from runtime.retail import Skip

ANSWER_S = 10.0  # The edge answers within two seconds; beyond this the request is lost on its way.
RETRY_AFTER_MAX_S = 30.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 5.0

Wanted = Placement | Withdrawal | Skip


@dataclass(frozen=True, slots=True)
class Pace:
    """How many requests are under way at a time, and how long one is repeated while it gets no answer."""

    at_a_time: int = 32
    patience_s: float = 60.0


@dataclass(slots=True)
class Tally:
    """What became of a file, by reason. `first` tells of each reason where it was met first."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    cancellations: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    untried_from_line: int | None = None

    @property
    def is_complete(self) -> bool:
        """True when everything was answered, be it with a refusal."""
        return not self.unanswered and self.untried_from_line is None

    def count(self, kind: Counter[str], reason: str, line_no: int, detail: str = "") -> None:
        kind[reason] += 1
        self.first.setdefault(reason, f"line {line_no}" + (f": {detail}" if detail else ""))


class GaveUpError(Exception):
    """There was no answer within our patience; the message is what was heard last."""


class Placer:
    """Places one file on one instance, and counts in `tally`."""

    def __init__(self, client: httpx.AsyncClient, pace: Pace, tally: Tally) -> None:
        self._client, self._pace, self._tally = client, pace, tally
        self._under_way: dict[str, trio.Event] = {}
        self._answered_at = -float("inf")
        self._is_gone = False

    async def place_all(self, wanted: Iterator[Wanted]) -> None:
        """Ask for everything that the file wants; of one order, in the order of the file."""
        send, receive = trio.open_memory_channel[Placement | Withdrawal](0)
        async with trio.open_nursery() as nursery, send, receive:
            for _ in range(self._pace.at_a_time):
                nursery.start_soon(self._work, receive.clone())
            while (one := await _next(wanted)) is not None:
                if isinstance(one, Skip):
                    self._tally.count(self._tally.skipped, one.reason, one.line_no, one.seen)
                    continue
                if (earlier := self._under_way.get(one.idempotency_key)) is not None:
                    await earlier.wait()
                if self._is_gone:
                    self._tally.untried_from_line = one.line_no
                    break
                self._under_way[one.idempotency_key] = trio.Event()
                await send.send(one)

    async def _work(self, handed: trio.MemoryReceiveChannel[Placement | Withdrawal]) -> None:
        async with handed:
            async for one in handed:
                try:
                    await (self._place(one) if isinstance(one, Placement) else self._withdraw(one))
                except GaveUpError as error:
                    self._tally.count(self._tally.unanswered, str(error), one.line_no)
                finally:
                    self._under_way.pop(one.idempotency_key).set()

    async def _place(self, one: Placement) -> None:
        key = {"Idempotency-Key": one.idempotency_key}
        answer = await self._ask("/orders", json=one.body, headers=key)
        if answer.is_success:
            self._tally.accepted += 1
            return
        problem = problem_in(answer)
        faults = (f"{fault.get('field')}: {fault.get('message')}" for fault in problem.errors)
        detail = "; ".join(faults) or problem.detail
        self._tally.count(self._tally.refused, problem.title, one.line_no, detail)

    async def _withdraw(self, one: Withdrawal) -> None:
        order_id = order_id_for(one.idempotency_key)
        answer = await self._ask(f"/orders/{order_id}/cancel")
        match answer.status_code:
            case httpx.codes.OK:
                became = "Cancelled"
            case httpx.codes.ACCEPTED:
                became = "Being cancelled"
            case _:
                became = problem_in(answer).title
        self._tally.count(self._tally.cancellations, became, one.line_no)

    async def _ask(self, path: str, **options: object) -> httpx.Response:
        """Ask until somebody decides.

        Raises:
            GaveUpError: nobody has, within our patience.
        """
        began = trio.current_time()
        for attempt in itertools.count():
            try:
                answer = await self._client.post(path, **options)  # type: ignore[arg-type]  # httpx's own.
            except httpx.TransportError as error:
                trouble, pause_s = type(error).__name__, 0.0
            else:
                if not _is_busy(answer):
                    self._answered_at = trio.current_time()
                    return answer
                trouble, pause_s = problem_in(answer).title, _retry_after_s(answer)
            pause_s = pause_s or _backoff_s(attempt)
            if trio.current_time() + pause_s > began + self._pace.patience_s:
                # Nobody else had an answer in all this time either: there is no use in going on.
                self._is_gone = self._is_gone or self._answered_at < began
                raise GaveUpError(trouble)
            await trio.sleep(pause_s)
        raise AssertionError("attempts never end by themselves")


async def _next(wanted: Iterator[Wanted]) -> Wanted | None:
    """Read on in a thread, since the file may be a pipe that is slow to fill."""
    return await trio.to_thread.run_sync(next, wanted, None, abandon_on_cancel=True)


def _is_busy(answer: httpx.Response) -> bool:
    """Whether the answer decides nothing, so that the same may be asked again."""
    return answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error


def _retry_after_s(answer: httpx.Response) -> float:
    """Seconds to wait before the next attempt, as the answer wishes; 0 where it has no wish that we understand."""
    wish: str = answer.headers.get("retry-after", "")
    return min(float(wish), RETRY_AFTER_MAX_S) if wish.isascii() and wish.isdigit() else 0.0


def _backoff_s(attempt: int) -> float:
    longest_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * (1 << min(attempt, 10)))
    return longest_s * random.uniform(0.5, 1)  # noqa: S311 - it spreads retries, and hides nothing.
