"""What the customers of a campaign want: the n-th order of a seed is always the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

HATS = tuple(f"hat-{number}" for number in range(12))
SCARCE = "scarce"
PLENTY = 5_000_000  # Of each hat: more than any campaign sells.
STOCK: Mapping[str, int] = {**dict.fromkeys(HATS, PLENTY), SCARCE: 25}

MULTI_LINE = 0.30
DECLINED = 0.10
OUT_OF_STOCK = 0.05  # Save for the first few, who get what is scarce.
CANCELLED = 0.03
READ = 0.20
TROUBLED = {"tok_slow": 0.02, "tok_flaky": 0.02, "tok_error_after_charge": 0.02}
"""Cards whose payment goes through in the end, but not at the first word."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One order: its key, its body, and what its customer does besides. `cancel_after_s` is None for most."""

    key: str
    body: dict[str, Any]
    cancel_after_s: float | None
    reads: bool

    @property
    def total_minor(self) -> int:
        return sum(item["quantity"] * item["unit_price_minor"] for item in self.body["items"])

    @property
    def lines(self) -> list[tuple[str, int, int]]:
        return [(i["sku"], i["quantity"], i["unit_price_minor"]) for i in self.body["items"]]


def wish(seed: int, number: int, sku: str | None = None) -> Wish:
    """The n-th order. With `sku` it is about that one alone, as everybody's is on some days."""
    rng = Random(f"{seed}.{number}")  # noqa: S311  # It has to repeat.
    count = rng.randint(2, 4) if rng.random() < MULTI_LINE else 1
    skus = rng.sample(HATS, count)
    if rng.random() < OUT_OF_STOCK:
        skus[0] = SCARCE
    if sku is not None:
        skus = [sku]
    body = {
        "customer_id": str(10_000 + number % 97),
        "currency": rng.choice(("GBP", "EUR")),
        "items": [
            {"sku": sku, "quantity": rng.randint(1, 4), "unit_price_minor": rng.randint(1, 2_000)}
            for sku in skus
        ],
        "payment_token": _token(rng),
    }
    cancel_after_s = rng.uniform(0, 0.1) if rng.random() < CANCELLED else None
    return Wish(f"chaos-{seed}-{number}", body, cancel_after_s, rng.random() < READ)


def _token(rng: Random) -> str:
    if rng.random() < DECLINED:
        return "tok_declined"
    drawn = rng.random()
    for token, chance in TROUBLED.items():
        if drawn < chance:
            return token
        drawn -= chance
    return "tok_ok"
