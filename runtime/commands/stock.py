"""The stock of a running instance: set what is on hand, list what there is."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime import retail
from runtime.commands.client import ask, ask_json, open_client
from runtime.commands.output import write_json
from runtime.commands.running import tell
from runtime.config_variables import Config
from runtime.edge.bodies import stock_levels
from runtime.edge.problems import Problem, shown

LEVELS_MAX = 500  # Of one request: well below 64 KiB, and set in a second.
COLUMNS = ("on_hand", "reserved", "available", "sold", "initial")

_NUMBER = re.compile(r"[0-9]{1,18}")


class LevelError(ValueError):
    """What was given is not stock; the message names every fault."""


def parse_levels(given: Iterable[str]) -> dict[str, int]:
    """What is on hand by SKU, from `SKU=N` words.

    Raises:
        LevelError: with every fault found.
    """
    pairs = [(word, *word.rpartition("=")[::2]) for word in given]
    faults = [
        f"'{shown(word)}' is not SKU=N, such as 85123A=100"
        for word, sku, number in pairs
        if not sku or not _NUMBER.fullmatch(number)
    ]
    counts = Counter(sku for _, sku, _ in pairs if sku)
    faults += [
        f"{shown(sku)} is given {n} times; give it once" for sku, n in counts.items() if n > 1
    ]
    if faults:
        raise LevelError("\n".join(faults))
    levels = {sku: int(number) for _, sku, number in pairs}
    try:
        return stock_levels(msgspec.json.encode(levels))
    except Problem as problem:
        # A fault of the SKU itself, not of its number, is one of a "key".
        told = (
            f"{fault.field.removesuffix('.[key]')}: {fault.message}" for fault in problem.faults
        )
        raise LevelError("\n".join(told) or problem.detail) from problem


def levels_of_excerpt() -> dict[str, int]:
    """What the shop of the shipped orders has on its shelves."""
    return retail.catalogue(one for one in retail.excerpt() if isinstance(one, retail.Order))


async def set_stock(config: Config, levels: Mapping[str, int]) -> None:
    """Set what is on hand, item by item.

    Raises:
        InstanceError: some levels were refused, or no instance answers.
    """
    async with open_client(config.admin_bind) as client:
        left = iter(levels.items())
        while part := dict(islice(left, LEVELS_MAX)):
            await _put(client, part)
    tell(f"{len(levels)} stock {'item' if len(levels) == 1 else 'items'} set")


async def _put(client: httpx.AsyncClient, levels: Mapping[str, int]) -> None:
    json = {"content-type": "application/json"}
    await ask(client, "PUT", "/stock", content=msgspec.json.encode(levels), headers=json)


async def list_stock(config: Config, as_json: bool) -> None:
    """Print every stock item's levels.

    Raises:
        InstanceError: no instance answers.
    """
    async with open_client(config.admin_bind) as client:
        levels = await ask_json(client, "/stock")
    if as_json:
        await write_json(levels)
    elif levels:
        Console().print(render(levels))
    else:
        tell("there is no stock yet; set some with `orders stock set SKU=N`")


def render(levels: Mapping[str, Mapping[str, Any]]) -> Table:
    """The stock for people."""
    table = Table("SKU")
    for column in COLUMNS:
        table.add_column(column.replace("_", " "), justify="right")
    for sku, level in levels.items():
        table.add_row(Text(sku), *(f"{level[column]:,}" for column in COLUMNS))
    return table
