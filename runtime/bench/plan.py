"""How much to measure."""

from dataclasses import dataclass
from typing import Any, TypeAlias

Figures: TypeAlias = "dict[str, Any]"
"""What a row has measured, by name; units last. Ready for JSON."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of all rows."""

    orders: int = 20_000
    in_flight: int = 256
    warm_up: int = 500
    paced: int = 500
    rate_hz: float = 50.0
    connections: int = 64
    live: int = 10_000
    until: int = 100_000
    """Finished orders at the end of the growth row, and before its recovery."""
    window: int = 3_000
    """Orders at full load that are measured at the end of each decade."""
    pairs: int = 5
