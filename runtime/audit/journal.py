"""The client's journal: a JSON line for each attempt that a client made, and what it was told.

It is written by whoever makes the load, beside the system under test, and is the auditor's only word on what customers
were promised.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from runtime.audit.lines import read_lines
from runtime.desk_types import order_id_for


class Op(StrEnum):
    PLACE = "place"
    CANCEL = "cancel"
    READ = "read"
    STOCK = "stock"


class Told(StrEnum):
    """What an attempt is known to have come to."""

    ACCEPTED = "accepted"  # 2xx.
    REFUSED = "refused"  # A definite 4xx: it did not happen.
    UNKNOWN = "unknown"  # Time-out, reset, 5xx, 429: it may or may not have happened, now or later.


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request. `order_id` is filled in whenever it is known, be it without an answer.

    `at_ms` is the wall clock at the sending; `code` is 0 without an answer; `version` is that of a view read.
    """

    op: Op
    at_ms: int
    outcome: Told
    key: str = ""
    tenant: str = ""
    order_id: str = ""
    took_ms: float = 0.0
    code: int = 0
    status: str = ""
    version: int = 0
    currency: str = ""
    total_minor: int = 0
    items: list[tuple[str, int, int]] = msgspec.field(default_factory=list)
    """SKU, quantity and unit price in minor units."""
    token: str = ""
    on_hand: int = 0
    sku: str = ""
    worker: int = 0

    @property
    def ended_ms(self) -> float:
        return self.at_ms + self.took_ms

    @property
    def about(self) -> str:
        """The order that it is about; a tenant's key says nothing by itself."""
        if self.order_id or self.tenant or self.op is not Op.PLACE:
            return self.order_id
        return order_id_for(self.key)


def read_journal(path: Path) -> Iterator[Attempt]:
    """The attempts in a file.

    Raises:
        LinesError: a line is none.
    """
    return read_lines(path, Attempt)


def encode_attempts(attempts: Iterable[Attempt]) -> bytes:
    """The lines of a journal."""
    return msgspec.json.Encoder().encode_lines(list(attempts))
