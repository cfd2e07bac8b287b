"""Failures on request, in a running instance: what can be made to fail, make it, and stop it."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.commands.client import InstanceError, RefusedError, ask, ask_json, open_client
from runtime.commands.output import write_json
from runtime.commands.running import tell
from runtime.config_variables import Config
from runtime.faults.fault import SELECTORS
from runtime.faults.points import EFFECTS

NOT_FOUND = 404
JSON = {"content-type": "application/json"}

Armed = Mapping[str, Any]


class FaultsOffError(InstanceError):
    """The instance takes no faults."""

    def __init__(self, url: object) -> None:
        super().__init__(
            f"faults are off in the instance at {url}: start it with FAULTS=on (never in production)"
        )


async def list_faults(config: Config, as_json: bool) -> None:
    """Print every point with what it carries and takes, and what is armed.

    Raises:
        InstanceError: no instance answers, or faults are off.
    """
    async with open_client(config.admin_bind) as client:
        await _require_on(client)
        found = await ask_json(client, "/faults")
    if as_json:
        await write_json(found)
        return
    console = Console()
    console.print(render_points(found["points"]))
    console.print(render_actions())
    console.print(Text(f"facts: {', '.join(found['facts'])}", style="dim"))
    console.print(render_armed(found["armed"]) if found["armed"] else Text("nothing is armed"))


async def inject_fault(config: Config, fault: Mapping[str, Any], as_json: bool) -> None:
    """Arm a fault, and print it as the instance has it.

    Raises:
        InstanceError: it was refused, faults are off, or no instance answers.
    """
    async with open_client(config.admin_bind) as client:
        await _require_on(client)
        body = msgspec.json.encode(fault)
        response = await ask(client, "POST", "/faults", content=body, headers=JSON)
    armed = msgspec.json.decode(response.content)
    if as_json:
        await write_json(armed)
    else:
        tell(f"{armed['id']} is armed for {armed['ends_in_s']:.0f} s: {_told(armed)}")


async def clear_faults(config: Config, fault_id: str | None) -> None:
    """Disarm one fault, or all of them.

    Raises:
        InstanceError: there is no such fault, faults are off, or no instance answers.
    """
    async with open_client(config.admin_bind) as client:
        await _require_on(client)
        await ask(client, "DELETE", "/faults" if fault_id is None else f"/faults/{fault_id}")
    tell("nothing is armed" if fault_id is None else f"{fault_id} is not armed any more")


async def _require_on(client: httpx.AsyncClient) -> None:
    try:
        await ask(client, "GET", "/faults")
    except RefusedError as error:
        if error.status == NOT_FOUND:
            raise FaultsOffError(client.base_url) from error
        raise


def render_points(points: Sequence[Mapping[str, Any]]) -> Table:
    """The points for people."""
    table = Table("point", "where", "carries", "actions", title="Points", title_justify="left")
    for point in points:
        carried, actions = ", ".join(point["carries"]), ", ".join(point["actions"])
        table.add_row(point["name"], point["where"], carried, Text(actions, style="dim"))
    return table


def render_actions() -> Table:
    """The actions for people."""
    table = Table("action", "what it does", title="Actions", title_justify="left")
    for action, effect in EFFECTS.items():
        table.add_row(action.value, effect)
    return table


def render_armed(armed: Sequence[Armed]) -> Table:
    """What is armed, for people."""
    table = Table("id", "fault", "met", "fired", "ends in", title="Armed", title_justify="left")
    for one in armed:
        fired = f"{one['fired']} of {one['times']}"
        table.add_row(
            one["id"], Text(_told(one)), str(one["met"]), fired, f"{one['ends_in_s']:.0f} s"
        )
    return table


def _told(one: Armed) -> str:
    words = [f"{one['action']} at {one['point']}"]
    words += [f"{name} {one[name]}" for name in SELECTORS if one.get(name) is not None]
    if one["probability"] < 1:
        words.append(f"probability {one['probability']:g} (seed {one['seed']})")
    if one.get("duration_s"):
        words.append(f"for {one['duration_s']:g} s")
    if one.get("code") is not None:
        words.append(f"code {one['code']}")
    return ", ".join(words)
