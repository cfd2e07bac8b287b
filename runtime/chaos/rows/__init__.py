"""All rows of the table of faults, a module for each family; each module has its `ROWS`."""

from collections.abc import Mapping

from runtime.chaos.row import Row
from runtime.chaos.rows import (
    actors,
    brokers,
    clock,
    disks,
    limits,
    mixed,
    nets,
    overload,
    poison,
    processes,
    provider,
    streams,
    telemetry,
    wire,
)

MODULES = (
    processes,
    actors,
    clock,
    limits,
    overload,
    poison,
    telemetry,
    brokers,
    streams,
    nets,
    disks,
    provider,
    wire,
    mixed,
)


def all_rows() -> Mapping[str, Row]:
    """Every row by its id, in the order of their numbers."""
    rows = sorted(
        (row for module in MODULES for row in module.ROWS), key=lambda row: _order(row.id)
    )
    return {row.id: row for row in rows}


def _order(row_id: str) -> tuple[int, str]:
    digits = "".join(character for character in row_id if character.isdigit())
    return int(digits or 0), row_id
