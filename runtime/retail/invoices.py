"""Gathers rows into invoices: an order, or a cancellation of earlier orders.

Every row ends up in exactly one place: in an order, in a cancellation, or in a `Skip` with its reason. An order holds a
product once: rows with the same price are added up, and a row with another price is skipped.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from actors.order_check import LINES_MAX
from runtime.retail.rows import INTEGER_MAX, Reason, Returned, Row, Skip, Sold

TOTAL_MINOR_MAX = 2**63 - 1
OPEN_INVOICES_MAX = 64  # An invoice's rows stand together in the export; merged files mix a few.


@dataclass(frozen=True, slots=True)
class Order:
    """One invoice: `items` are (sku, quantity, unit_price_minor), each SKU once; `rows` says how many rows it took."""

    invoice: str
    customer_id: str
    items: tuple[tuple[str, int, int], ...]
    country: str
    line_no: int
    rows: int
    currency: str = "GBP"


@dataclass(frozen=True, slots=True)
class Cancellation:
    """One C-invoice: the customer gave `skus` back. `Latest` knows which orders that cancels."""

    invoice: str
    customer_id: str
    skus: tuple[str, ...]
    line_no: int
    rows: int


Planned = Order | Cancellation | Skip


def plan(rows: Iterable[Row]) -> Iterator[Planned]:
    """Gather the rows of each invoice. Orders and cancellations come in the file's order, which is the order of time.

    Invoices may interleave, OPEN_INVOICES_MAX at a time. A row that comes after its invoice has been given out is
    skipped, since an order that was placed cannot grow; this is why the numbers of past invoices stay in memory.
    """
    open_invoices: dict[str, _OpenOrder | _OpenCancellation] = {}
    given_out: set[str] = set()
    for row in rows:
        if isinstance(row, Skip):
            yield row
            continue
        if row.invoice in given_out:
            yield Skip(row.line_no, row.invoice, Reason.LATE, row.sku)
            continue
        if row.invoice not in open_invoices:
            open_invoices[row.invoice] = _open(row)
        if refused := open_invoices[row.invoice].take(row):
            yield Skip(row.line_no, row.invoice, refused, row.sku)
        if len(open_invoices) > OPEN_INVOICES_MAX:
            oldest = next(iter(open_invoices))
            given_out.add(oldest)
            yield open_invoices.pop(oldest).close()
    for invoice in open_invoices.values():
        yield invoice.close()


class Latest:
    """Which order a cancellation hits: that customer's latest earlier order holding the product."""

    def __init__(self) -> None:
        self._invoices: dict[tuple[str, str], str] = {}

    def remember(self, order: Order) -> None:
        for sku, _, _ in order.items:
            self._invoices[order.customer_id, sku] = order.invoice

    def hit_by(self, cancellation: Cancellation) -> tuple[str, ...]:
        """The invoices cancelled, each once; more than one where the goods came from several orders."""
        customer_id = cancellation.customer_id
        found = (self._invoices.get((customer_id, sku)) for sku in cancellation.skus)
        return tuple(dict.fromkeys(invoice for invoice in found if invoice is not None))


@dataclass(frozen=True, slots=True)
class Counts:
    """What a file held. `order_rows` + `cancellation_rows` + all of `skipped` are its rows."""

    orders: int
    order_rows: int
    cancellations: int
    cancellation_rows: int
    skipped: dict[str, int]


def counts(planned: Iterable[Planned]) -> Counts:
    """Count orders, cancellations that hit an earlier order, and all other rows by reason, most frequent first."""
    latest = Latest()
    orders: list[int] = []
    cancellations: list[int] = []
    skipped: Counter[str] = Counter()
    for one in planned:
        match one:
            case Order():
                latest.remember(one)
                orders.append(one.rows)
            case Cancellation() if latest.hit_by(one):
                cancellations.append(one.rows)
            case Cancellation():
                skipped[Reason.NO_EARLIER_ORDER] += one.rows
            case Skip():
                skipped[one.reason] += 1
    return Counts(
        len(orders),
        sum(orders),
        len(cancellations),
        sum(cancellations),
        dict(skipped.most_common()),
    )


@dataclass(slots=True)
class _OpenOrder:
    first: Sold
    rows: int = 0
    total_minor: int = 0
    items: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, row: Sold | Returned) -> Reason | None:
        """Add the row, or say why it does not belong here."""
        # The invoice number decides the kind, so all its rows are of one.
        assert isinstance(row, Sold)
        if row.customer_id != self.first.customer_id:
            return Reason.OTHER_CUSTOMER
        quantity, unit_price_minor = self.items.get(row.sku, (0, row.unit_price_minor))
        if unit_price_minor != row.unit_price_minor:
            return Reason.OTHER_PRICE
        if quantity == 0 and len(self.items) == LINES_MAX:
            return Reason.TOO_MANY_LINES
        quantity += row.quantity
        total_minor = self.total_minor + row.quantity * unit_price_minor
        if quantity > INTEGER_MAX or total_minor > TOTAL_MINOR_MAX:
            return Reason.TOO_LARGE
        self.items[row.sku] = quantity, unit_price_minor
        self.total_minor = total_minor
        self.rows += 1
        return None

    def close(self) -> Order:
        items = tuple((sku, quantity, price) for sku, (quantity, price) in self.items.items())
        first = self.first
        return Order(
            first.invoice, first.customer_id, items, first.country, first.line_no, self.rows
        )


@dataclass(slots=True)
class _OpenCancellation:
    first: Returned
    rows: int = 0
    skus: dict[str, None] = field(default_factory=dict)

    def take(self, row: Sold | Returned) -> Reason | None:
        if row.customer_id != self.first.customer_id:
            return Reason.OTHER_CUSTOMER
        if row.sku not in self.skus and len(self.skus) == LINES_MAX:
            return Reason.TOO_MANY_LINES
        self.skus[row.sku] = None
        self.rows += 1
        return None

    def close(self) -> Cancellation:
        first = self.first
        return Cancellation(
            first.invoice, first.customer_id, tuple(self.skus), first.line_no, self.rows
        )


def _open(first: Sold | Returned) -> _OpenOrder | _OpenCancellation:
    return _OpenOrder(first) if isinstance(first, Sold) else _OpenCancellation(first)
