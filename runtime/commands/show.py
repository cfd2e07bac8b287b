"""One order as a person reads it: from the running instance, or from the broker alone where none runs."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from runtime.commands.client import (
    InstanceError,
    NoInstanceError,
    RefusedError,
    ask_json,
    open_client,
)
from runtime.commands.money import in_major_units
from runtime.commands.output import write_json
from runtime.commands.running import tell
from runtime.config_variables import Config
from runtime.reading import open_broker, read_order

STATUS_STYLES = {
    "confirmed": "green",
    "rejected": "red",
    "cancelled": "yellow",
    "needs_attention": "bold red",
}

View = Mapping[str, Any]


async def show(config: Config, order_id: str, as_json: bool) -> None:
    """Print one order.

    Raises:
        InstanceError: there is no such order, or the instance cannot tell.
        LogError: no instance runs, and the broker cannot be read either.
    """
    try:
        view = await _ask_instance(config, order_id)
    except NoInstanceError:
        tell("no instance is running; reading from the broker alone")
        async with open_broker(config) as log:
            view = await read_order(log, config.order_shards, order_id)
    if view is None:
        raise InstanceError(f"there is no order {order_id}")
    if as_json:
        await write_json(view)
    else:
        Console().print(render(view))


async def _ask_instance(config: Config, order_id: str) -> View | None:
    async with open_client(config.http_bind) as client:
        try:
            view: View = await ask_json(client, f"/orders/{order_id}")
        except RefusedError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
    return view


def render(view: View) -> RenderableType:
    """An order for people. One that no shard has taken up yet shows its status alone."""
    parts: list[RenderableType] = [_head(view)]
    if view.get("items"):
        parts.append(_items(view))
    if view.get("history"):
        parts.append(_history(view))
    return Group(*parts)


def _head(view: View) -> Table:
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim")
    head.add_column()
    for name, value in _facts(view):
        head.add_row(name, value)
    return head


def _facts(view: View) -> Iterator[tuple[str, Text]]:
    yield "order", Text(view["order_id"], style="bold")
    yield "status", Text(view["status"], style=STATUS_STYLES.get(view["status"], "cyan"))
    if view.get("reason"):
        yield "reason", Text(view["reason"])
    if view.get("customer_id"):
        yield "customer", Text(view["customer_id"])
    if total := view.get("total"):
        yield "total", Text(in_major_units(total["minor"], total["currency"]), style="bold")
    if payment := view.get("payment"):
        ids = (payment["charge_id"], payment["refund_id"])
        yield "payment", Text(", ".join((payment["status"], *filter(None, ids))))
    if reservation := view.get("reservation"):
        held = f" until {reservation['expires_at']}" if reservation["status"] == "held" else ""
        yield "reservation", Text(f"{reservation['status']}{held}")
    yield "trace", Text(view.get("trace_id") or "none")


def _items(view: View) -> Table:
    currency = view["total"]["currency"]
    items = Table("SKU", title="Items", title_justify="left")
    for name in ("quantity", "unit price", "amount"):
        items.add_column(name, justify="right")
    for item in view["items"]:
        quantity, price_minor = item["quantity"], item["unit_price_minor"]
        items.add_row(
            Text(item["sku"]),
            f"{quantity:,}",
            in_major_units(price_minor, currency),
            in_major_units(quantity * price_minor, currency),
        )
    return items


def _history(view: View) -> Table:
    history = Table("at", "heard", "then", title="History", title_justify="left")
    for line in view["history"]:
        style = STATUS_STYLES.get(line["status"], "cyan")
        history.add_row(line["at"], Text(line["event"]), Text(line["status"], style=style))
    return history
