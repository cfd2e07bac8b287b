"""Actors: who decides what. Pure functions over values; nothing here waits, stores or looks at a clock.

```
               OrderCreated                (HTTP, or anyone's producer on ORDER.created.<order_id>)
                    v
order  --OrderOpened--> inventory --StockReserved / StockRefused--> order      (one answer per inventory shard asked)
order  --OrderReserved--> payment --PaymentTaken / PaymentRefused / PaymentUnknown--> order
order  --OrderConfirmed / OrderRejected / OrderCancelled--> inventory (sell or release)
order  --OrderConfirmed / OrderCancelled--> payment (done, or give back what was taken)
payment --PaymentRefunded / PaymentVoided--> order
```

Start with `actor.py` (the nouns), then `order.py` (with `order_state.py` and `order_check.py`), `inventory.py`,
`payment.py`: each opens with what it decides.
A fourth actor is three files: its messages in `messages/proto`, its module here, and its line in `ACTORS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from actors.actor import Actor
from actors.inventory import InventoryActor
from actors.order import OrderActor
from actors.order_check import LINES_MAX
from actors.payment import PaymentActor


@dataclass(frozen=True, slots=True)
class Terms:
    """The business terms that the actors decide by."""

    reservation_ttl_ms: int = 30 * 60_000
    payment_deadline_ms: int = 15 * 60_000
    payment_settle_ms: int = 20_000
    order_lines_max: int = LINES_MAX


@dataclass(frozen=True, slots=True)
class Place:
    """Which shard of how many an actor is made for."""

    shard: int
    shards: int


ACTORS: dict[str, Callable[[Terms, Place], Actor]] = {
    "order": lambda terms, _: OrderActor(
        reservation_ttl_ms=terms.reservation_ttl_ms, lines_max=terms.order_lines_max
    ),
    "inventory": lambda terms, place: InventoryActor(
        shard=place.shard, shards=place.shards, reservation_ttl_ms=terms.reservation_ttl_ms
    ),
    "payment": lambda terms, _: PaymentActor(
        deadline_ms=terms.payment_deadline_ms, settle_ms=terms.payment_settle_ms
    ),
}
