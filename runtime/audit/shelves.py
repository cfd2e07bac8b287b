"""The book of stock: every SKU's balance after every record, and what the reservations beside it add up to (I4)."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from actors.inventory import Reservation, Stock, reservation_key, stock_key
from messages.record import Change
from runtime.audit.report import Finding
from runtime.log import Entry
from runtime.recall import Address

_decode = msgspec.msgpack.Decoder(Stock | Reservation).decode
_STOCK, _RESERVATION = stock_key(""), reservation_key("")


class Shelves:
    """Takes the records of the inventory shards."""

    def __init__(self) -> None:
        self.stocks: dict[str, Stock] = {}
        self.reservations: dict[tuple[int, str], Reservation] = {}
        """By shard and order: each shard holds its own lines of an order."""
        self.findings: list[Finding] = []
        self.mismatches: list[Finding] = []
        """Between stock and reservations: only to be believed if the log has all of these."""
        self.balances = 0
        self._held: Counter[str] = Counter()

    def take(self, address: Address, entry: Entry, states: Sequence[Change]) -> None:
        """Apply one record, and hold every SKU that it touched to its balance."""
        touched: set[str] = set()
        for change in states:
            try:
                state = None if change.state is None else _decode(change.state)
            except msgspec.MsgspecError as error:
                self._note(change.key, f"its state cannot be read: {error}", entry)
                continue
            if change.key.startswith(_RESERVATION):
                key = (address.shard, change.key.removeprefix(_RESERVATION))
                touched |= self._keep(key, state)
            elif isinstance(state, Stock):
                self.stocks[state.sku] = state
                touched.add(state.sku)
            else:
                self._note(change.key, "a stock item was forgotten", entry)
        for sku in touched:
            self.balances += 1
            stock = self.stocks.get(sku)
            if stock is not None and (fault := _find_fault(stock)):
                self._note(sku, fault, entry)
            reserved = stock.reserved if stock is not None else 0
            if reserved != self._held[sku]:
                seen = f"{reserved} are reserved, but the reservations hold {self._held[sku]}"
                self.mismatches.append(Finding("I4", sku, seen, entry.seq))

    def _keep(self, key: tuple[int, str], state: object) -> set[str]:
        """Replace a reservation; the SKUs that it was or is about."""
        before = self.reservations.pop(key, None)
        touched: set[str] = set()
        for line in before.lines if before else ():
            self._held[line.sku] -= line.quantity
            touched.add(line.sku)
        if isinstance(state, Reservation):
            self.reservations[key] = state
            for line in state.lines:
                self._held[line.sku] += line.quantity
                touched.add(line.sku)
        return touched

    def _note(self, subject: str, fault: str, entry: Entry) -> None:
        self.findings.append(Finding("I4", subject.removeprefix(_STOCK), fault, entry.seq))


def _find_fault(stock: Stock) -> str:
    if min(stock.initial, stock.on_hand, stock.reserved, stock.available, stock.sold) < 0:
        return f"something is negative: {_levels(stock)}"
    if stock.initial != stock.available + stock.reserved + stock.sold:
        return f"initial is not available + reserved + sold: {_levels(stock)}"
    return ""


def _levels(stock: Stock) -> str:
    return (
        f"initial {stock.initial}, available {stock.available}, reserved {stock.reserved},"
        f" sold {stock.sold}"
    )
