"""The demo's customers: a process of its own that knows the system by its two HTTP addresses alone.

It stocks the shop, places every order of the plan, and at the end asks for every order and for the stock. What it was
told goes to standard output, a JSON line each, for the demo to judge.

Each client places an order, waits until it is terminal (`Prefer: wait`) and takes the next one. Whatever it does not
get an answer to it asks again, with the same Idempotency-Key.
"""

import itertools
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import msgspec
import trio

from actors.order_state import TERMINAL, OrderStatus
from runtime.demo_plan import Placing, make_plan

WAIT_S = 5  # Of one `Prefer: wait`; an order that takes longer is asked for again.
ANSWER_S = 10.0  # Beyond it a request counts as lost on the way.
PATIENCE_S = 60.0  # For one order, or one question, through all failures.
PAUSE_MAX_S = 2.0
SETTLE_S = 10.0  # For stock: an order is terminal a moment before inventory has heard of it.
CHUNK = 500  # Stock levels a request.
BUSY = frozenset({429, 500, 502, 503, 504})


class Stocked(msgspec.Struct, frozen=True, tag=True):
    """The shop has its opening stock."""

    products: int
    units: int


class Placed(msgspec.Struct, frozen=True, tag=True):
    """What became of one order while its client waited: a line of the journal.

    `order_id` is empty where no answer ever accepted the order; then `trouble` says what was heard last.
    """

    key: str
    order_id: str
    began_s: float  # Unix time of the first POST.
    took_ms: (
        float  # From there until the client had the terminal order, however often it had to ask.
    )
    busy: int  # Answers of 503 and the like.
    unanswered: int  # Requests that came to nothing: refused, cut off, timed out.
    cancel: str = ""  # What the cancel was told.
    trouble: str = ""


class Seen(msgspec.Struct, frozen=True, tag=True):
    """One order as GET shows it at the end; an empty status where there is none."""

    order_id: str
    status: str
    reason: str


class Level(msgspec.Struct, frozen=True):
    initial: int
    on_hand: int
    reserved: int
    available: int
    sold: int


class Stock(msgspec.Struct, frozen=True, tag=True):
    """The stock as GET shows it at the end."""

    levels: dict[str, Level]


Told = Stocked | Placed | Seen | Stock


def command(http: str, admin: str, orders_max: int, clients: int) -> list[str]:
    """How this process is started. The addresses are `host:port`."""
    return [sys.executable, "-m", __name__, http, admin, str(orders_max), str(clients)]


def main() -> None:
    http, admin, orders_max, clients = sys.argv[1:]
    trio.run(_run, f"http://{http}", f"http://{admin}", int(orders_max), int(clients))


async def _run(http: str, admin: str, orders_max: int, clients: int) -> None:
    plan = make_plan(orders_max)
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(limits=limits, timeout=ANSWER_S, trust_env=False) as client:
        await _stock(client, admin, plan.opening)
        order_ids = await _place_all(client, http, plan.placings, clients)
        await _look_at_all(client, http, order_ids, clients)
        _tell(Stock(await _settled(client, admin)))


def _tell(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


# --- the steps ---


async def _stock(client: httpx.AsyncClient, admin: str, opening: Mapping[str, int]) -> None:
    for start in range(0, len(opening), CHUNK):
        levels = dict(itertools.islice(opening.items(), start, start + CHUNK))
        answer = await _Asking(client).ask("PUT", f"{admin}/stock", json=levels)
        answer.raise_for_status()
    _tell(Stocked(len(opening), sum(opening.values())))


async def _place_all(
    client: httpx.AsyncClient, http: str, placings: Sequence[Placing], clients: int
) -> list[str]:
    """Place all, `clients` at a time; returns the ids of those that were accepted."""
    order_ids: list[str] = []
    waiting = iter(placings)

    async def one_after_the_other() -> None:
        for placing in waiting:
            placed = await _Customer(client, http, placing).place()
            _tell(placed)
            if placed.order_id:
                order_ids.append(placed.order_id)

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(one_after_the_other)
    return order_ids


async def _look_at_all(
    client: httpx.AsyncClient, http: str, order_ids: Sequence[str], clients: int
) -> None:
    waiting = iter(order_ids)

    async def one_after_the_other() -> None:
        for order_id in waiting:
            answer = await _Asking(client).ask("GET", f"{http}/orders/{order_id}")
            view = answer.json() if answer.is_success else {}
            _tell(Seen(order_id, view.get("status", ""), view.get("reason") or ""))

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(one_after_the_other)


async def _settled(client: httpx.AsyncClient, admin: str) -> dict[str, Level]:
    """The stock once nothing is reserved any more, or as it is when the time is up."""
    deadline = trio.current_time() + SETTLE_S
    while True:
        answer = await _Asking(client).ask("GET", f"{admin}/stock")
        levels = msgspec.json.decode(answer.raise_for_status().content, type=dict[str, Level])
        if not any(level.reserved for level in levels.values()):
            return levels
        if trio.current_time() > deadline:
            return levels
        await trio.sleep(0.1)


# --- one order ---


@dataclass(slots=True)
class _Customer:
    client: httpx.AsyncClient
    http: str
    placing: Placing
    order_id: str = ""

    async def place(self) -> Placed:
        """Place the order, cancel it where that is planned, and wait until it is terminal."""
        began_s, start_s = time.time(), trio.current_time()
        asking = _Asking(self.client)
        told = trouble = ""
        try:
            if self.placing.cancel:
                await self._post(asking, wait_s=None)
                told = await self._cancel(asking)
            while await self._post(asking, wait_s=WAIT_S) not in _DECIDED:
                pass
        except (httpx.HTTPError, TimeoutError) as error:
            trouble = str(error)
        took_ms = round((trio.current_time() - start_s) * 1000, 3)
        busy, unanswered = asking.busy, asking.unanswered
        return Placed(
            self.placing.key, self.order_id, began_s, took_ms, busy, unanswered, told, trouble
        )

    async def _post(self, asking: "_Asking", wait_s: int | None) -> str:
        headers = {"Idempotency-Key": self.placing.key}
        if wait_s is not None:
            headers["Prefer"] = f"wait={wait_s}"
        url = f"{self.http}/orders"
        answer = await asking.ask("POST", url, headers=headers, json=self.placing.body)
        accepted = answer.raise_for_status().json()
        self.order_id = accepted["order_id"]
        return str(accepted["status"])

    async def _cancel(self, asking: "_Asking") -> str:
        answer = await asking.ask("POST", f"{self.http}/orders/{self.order_id}/cancel")
        if answer.status_code != httpx.codes.CONFLICT:
            answer.raise_for_status()
        return "too late" if answer.status_code == httpx.codes.CONFLICT else "cancelled"


_DECIDED = TERMINAL | {OrderStatus.NEEDS_ATTENTION}


@dataclass(slots=True)
class _Asking:
    """Asks until there is an answer, and counts how often there was none; all its questions share one patience."""

    client: httpx.AsyncClient
    busy: int = 0
    unanswered: int = 0
    deadline_s: float = field(default_factory=lambda: trio.current_time() + PATIENCE_S)

    async def ask(self, method: str, url: str, **request: object) -> httpx.Response:
        """Send the same request until it is answered with something other than 'not now'.

        Raises:
            TimeoutError: nobody answered while the patience lasted.
        """
        heard = "no answer"
        pauses_s = _pauses_s()
        while trio.current_time() < self.deadline_s:
            pause_s = next(pauses_s)
            try:
                answer = await self.client.request(method, url, **request)  # type: ignore[arg-type]
            except httpx.TransportError as error:
                self.unanswered += 1
                heard = repr(error)
            else:
                if answer.status_code not in BUSY:
                    return answer
                self.busy += 1
                heard = answer.text
                pause_s = _retry_after_s(answer, pause_s)
            await trio.sleep(pause_s)
        raise TimeoutError(f"{method} {url}: {heard}")


def _pauses_s() -> Iterator[float]:
    """Twice as long each time, and never the same for two clients."""
    for doubled in itertools.count():
        yield min(PAUSE_MAX_S, 0.05 * 2**doubled) * random.uniform(0.5, 1)  # noqa: S311  # No secret.


def _retry_after_s(answer: httpx.Response, otherwise_s: float) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), PAUSE_MAX_S) if text.isdecimal() else otherwise_s


if __name__ == "__main__":
    main()
