"""The orders of a sweep, what each is for, and what must hold once one of them is over."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from actors.order_state import TERMINAL
from runtime.chaos.sweep_ground import STOCK
from runtime.simulator_ledger import Line


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of order; where `cancels`, its client changes its mind the moment it is being charged."""

    name: str
    token: str
    items: Mapping[str, int]
    ends: frozenset[str]
    cancels: bool = False

    @property
    def lines(self) -> list[tuple[str, int, int]]:
        """SKU, quantity and unit price in minor units."""
        return [(sku, quantity, 255) for sku, quantity in self.items.items()]

    @property
    def body(self) -> dict[str, Any]:
        names = ("sku", "quantity", "unit_price_minor")
        return {
            "customer_id": "17850",
            "currency": "GBP",
            "payment_token": self.token,
            "items": [dict(zip(names, line, strict=True)) for line in self.lines],
        }

    @property
    def total_minor(self) -> int:
        return sum(quantity * price_minor for _, quantity, price_minor in self.lines)


# Two lines each, of which every inventory shard has one.
TWO_LINES: Final = {"hat": 2, "boot": 3}
SCENARIOS: Final = (
    Scenario("confirmed", "tok_ok", TWO_LINES, frozenset({"confirmed"})),
    Scenario("declined", "tok_declined", TWO_LINES, frozenset({"rejected"})),
    Scenario(
        "cancelled",
        "tok_slow",  # Charged by the time that the cancellation is heard, so it is given back.
        TWO_LINES,
        frozenset({"cancelled", "confirmed"}),  # A kill may let the charge win.
        cancels=True,
    ),
    Scenario("out of stock", "tok_ok", {"boot": 3, "rare": 2}, frozenset({"rejected"})),
)


class Books:
    """What was sold, by what the clients were told; and whether all agree with that."""

    def __init__(self) -> None:
        self._sold: Counter[str] = Counter()

    def close(
        self,
        scenario: Scenario,
        answers: Sequence[Mapping[str, Any]],
        ledger: Sequence[Line],
        levels: Mapping[str, Mapping[str, int]],
    ) -> Iterator[str]:
        """What is wrong, once an order is over: with the answers about it, its money, and all of the stock."""
        last = answers[-1]
        order_id, status = last["order_id"], last["status"]
        if status not in scenario.ends:
            yield f"it ended {status}"
        for field in ("order_id", "status", "history"):
            if any(answer[field] != last[field] for answer in answers):
                yield f"the same request was answered with one {field} and then another"
        if sum(event["status"] in TERMINAL for event in last["history"]) != 1:
            yield f"its history has not one end: {last['history']}"
        yield from _money(scenario, order_id, status, ledger)
        if status == "confirmed":
            self._sold.update(scenario.items)
        for sku, initial in STOCK.items():
            sold = self._sold[sku]
            left = {"on_hand": initial - sold, "available": initial - sold}
            wanted = {"initial": initial, "sold": sold, "reserved": 0, **left}
            if levels.get(sku) != wanted:
                yield f"stock of {sku} is {levels.get(sku)}, not {wanted}"


def _money(scenario: Scenario, order_id: str, status: str, ledger: Sequence[Line]) -> Iterator[str]:
    lines = [line for line in ledger if line.reference == order_id]
    captures = sum(line.kind == "capture" for line in lines)
    if captures > 1:
        yield f"it was charged {captures} times"
    net = sum(line.amount_minor * (1 if line.kind == "capture" else -1) for line in lines)
    owed = scenario.total_minor if status == "confirmed" else 0
    if net != owed:
        yield f"it is {status}, and {net} was taken, not {owed}"
