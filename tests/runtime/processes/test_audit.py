"""The audit itself: it finds nothing where all is well, and every single thing that is not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

Factory = Callable[..., Any]
LEVELS = {"hat": {"initial": 10, "on_hand": 8, "reserved": 0, "available": 8, "sold": 2}}


@dataclass
class Told:
    """What a client knows of one order."""

    key: str
    order_ids: set[str]
    status: str
    body: dict[str, Any] = field(
        default_factory=lambda: {"items": [{"sku": "hat", "quantity": 2, "unit_price_minor": 50}]}
    )
    accepted = True
    total_minor = 100

    @property
    def order_id(self) -> str:
        return next(iter(self.order_ids))

    @property
    def view(self) -> dict[str, Any]:
        return {"status": self.status, "history": [{"status": "pending"}, {"status": self.status}]}


def moved(kind: str, reference: str = "o1", amount_minor: int = 100) -> dict[str, Any]:
    return {"kind": kind, "reference": reference, "amount_minor": amount_minor}


WELL = Told("k1", {"o1"}, "confirmed")
TAKEN = moved("capture")


@pytest.mark.parametrize(
    ("told", "ledger", "levels", "fault"),
    [
        (WELL, [TAKEN], LEVELS, None),
        (Told("k1", {"o1"}, "reserved"), [], {}, "is lost"),
        (Told("k1", {"o1", "o2"}, "confirmed"), [TAKEN], LEVELS, "several orders"),
        (WELL, [], LEVELS, "charged 0, not 100"),
        (WELL, [TAKEN, TAKEN], LEVELS, "o1 was charged 2 times"),
        (WELL, [TAKEN, moved("refund"), TAKEN], LEVELS, "o1 was charged 2 times"),
        (WELL, [TAKEN, moved("refund")], LEVELS, "charged 0, not 100"),
        (WELL, [moved("capture", amount_minor=99)], LEVELS, "charged 99, not 100"),
        (Told("k1", {"o1"}, "rejected"), [TAKEN], {}, "charged 100, not 0"),
        (WELL, [TAKEN, moved("capture", "o9")], LEVELS, "o9 was charged, and nobody ordered it"),
        (WELL, [TAKEN], {"hat": LEVELS["hat"] | {"sold": 3}}, "stock of hat"),
        (WELL, [TAKEN], {"hat": LEVELS["hat"] | {"reserved": 1}}, "stock of hat"),
        (WELL, [TAKEN], {}, "stock of hat"),
    ],
)
def test_the_audit_sees(
    audit: Factory, told: Told, ledger: list[Any], levels: Any, fault: str | None
) -> None:
    faults = audit({told.key: told}, ledger, levels, initial={"hat": 10})
    if fault is None:
        assert faults == []
    else:
        assert any(fault in found for found in faults), faults
