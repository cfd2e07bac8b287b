"""Real orders: the shop's export (UCI "Online Retail") as values that can be placed.

    lines -> read_rows -> Sold | Returned | Skip -> plan -> Order | Cancellation | Skip

- `rows`      one line of the export: sold, returned, or skipped with the reason
- `invoices`  rows gathered into orders and cancellations, and which order a cancellation hits
- `shop`      how the demo pays for an order, and what it has in stock

`excerpt()` is the part of the data set that ships with the product; its origin and licence stand beside it in
`runtime/data/README.md`.
"""

from collections.abc import Iterator
from importlib.resources import files

from runtime.retail.invoices import Cancellation, Counts, Latest, Order, Planned, counts, plan
from runtime.retail.rows import Reason, RetailFormatError, Skip, read_lines, read_rows
from runtime.retail.shop import TOKEN_SHARES, body, catalogue, idempotency_key, payment_token

__all__ = [
    "TOKEN_SHARES",
    "Cancellation",
    "Counts",
    "Latest",
    "Order",
    "Planned",
    "Reason",
    "RetailFormatError",
    "Skip",
    "body",
    "catalogue",
    "counts",
    "excerpt",
    "idempotency_key",
    "payment_token",
    "plan",
    "read_lines",
    "read_rows",
]


def excerpt() -> Iterator[Planned]:
    """The shipped orders, in order of time: more than 2,100 of them."""
    with (files("runtime") / "data" / "online_retail_excerpt.csv").open("rb") as file:
        yield from plan(read_rows(read_lines(file)))
