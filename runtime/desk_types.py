"""What passes over the desk: the words that the HTTP edge and the actors' side of this process have in common."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from actors.actor import Answer, Outcome

ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # Also a token of a NATS subject and a KV key.


class Unavailable(Exception):  # noqa: N818  # The state of the service, as a client reads it; nobody made an error.
    """Not now: the broker is away, a shard restarts, or nobody knows the outcome. Asking again is safe.

    `reason` is shown to the client, so it names no hosts and holds no secrets.
    """

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class NewItem:
    """One line: quantity 1 to 2^31 - 1, price from 1 up, each stock item once an order."""

    sku: str
    quantity: int
    unit_price_minor: int


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order that passed the edge: well formed, as many items as a shop allows, a total that fits 64 bits."""

    order_id: str
    customer_id: str
    currency: str
    items: tuple[NewItem, ...]
    payment_token: str

    @property
    def total_minor(self) -> int:
        return sum(item.quantity * item.unit_price_minor for item in self.items)


@dataclass(frozen=True, slots=True)
class Placed:
    """The answer to an order: DONE (new or the same again), REUSED (same id, another body) or INVALID."""

    order_id: str
    outcome: Outcome
    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes ask for. `reasons` says why not ready, in words that anyone may read."""

    connected: bool
    ready: bool
    started: bool
    reasons: tuple[str, ...] = ()


class OrderDesk(Protocol):
    """Everything that the edge can ask of the rest of the process."""

    async def place(self, order: NewOrder, *, traceparent: str | None) -> Placed:
        """Durable when it returns. Raises Unavailable."""
        ...

    async def cancel(self, order_id: str, *, traceparent: str | None) -> Answer:
        """DONE, TOO_LATE or UNKNOWN, with the status that the order has now. Raises Unavailable."""
        ...

    async def retry(self, order_id: str, *, traceparent: str | None) -> Answer:
        """Look again at the payment of an order that needs attention: DONE, TOO_LATE or UNKNOWN. Raises Unavailable."""
        ...

    async def view(self, order_id: str) -> bytes | None:
        """The public JSON of one order, or None where there is none. Raises Unavailable."""
        ...

    @property
    def is_open(self) -> bool:
        """True from the moment everything has started until the process begins to stop."""
        ...

    def admit(self, order_id: str) -> None:
        """Refuse early what could not be answered in time. Raises Unavailable."""
        ...

    def watching(self, order_id: str, tell: Callable[[], None]) -> AbstractContextManager[None]:
        """Let `tell` be called whenever the order may have changed, and when the desk closes."""
        ...

    async def wait_terminal(self, order_id: str, timeout_s: float) -> bytes | None:
        """The public JSON once the order is terminal, or the newest one when the time is up."""
        ...

    async def set_stock(self, levels: Mapping[str, int]) -> Mapping[str, Answer]:
        """Set what is on hand; one answer a stock item. Raises Unavailable."""
        ...

    async def stock(self) -> Mapping[str, Any]:
        """The levels of every stock item, ready for JSON. Raises Unavailable."""
        ...

    def health(self) -> Health: ...

    def tree(self) -> Any:
        """The supervision tree as it stands, ready for JSON."""
        ...


def order_id_for(key: str, tenant: str | None = None) -> str:
    """The order's id, derived from its Idempotency-Key: a repeat is the same order for ever, without a table.

    Two tenants may use the same key: theirs are two orders. No tenant and no key has a space in it.
    """
    scoped = key if tenant is None else f"{tenant} {key}"
    digest = base64.b32encode(hashlib.sha256(scoped.encode()).digest())
    return "o" + digest[:26].decode().lower()  # 130 bits: nobody meets another's order by chance.


class _Status(msgspec.Struct):
    status: str


def status_of(view: bytes) -> str:
    """The status in the public JSON of an order."""
    return msgspec.json.decode(view, type=_Status).status
