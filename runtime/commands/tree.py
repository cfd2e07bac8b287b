"""The supervision tree of a running instance: who runs, who backs off, who failed of what, and who gets on."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import trio
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from runtime.commands.client import InstanceError, ask_json, open_client
from runtime.commands.output import write_json
from runtime.config_variables import Config

WATCH_EVERY_S = 0.5
ERROR_CHARS_MAX = 100  # One line each; the log has the rest.
STATE_STYLES = {"running": "green", "starting": "cyan", "waiting": "dim", "stopped": "dim"}

Node = Mapping[str, Any]


async def show_tree(config: Config, as_json: bool, watch: bool) -> None:
    """Print the tree, or go on showing it until interrupted.

    Raises:
        InstanceError: no instance answers.
    """
    async with open_client(config.admin_bind) as client:
        node = await ask_json(client, "/tree")
        if as_json:
            await write_json(node)
        elif not watch:
            Console(soft_wrap=True).print(render(node))
        else:
            with Live(render(node), auto_refresh=False) as live, suppress(KeyboardInterrupt):
                while True:
                    await trio.sleep(WATCH_EVERY_S)
                    live.update(await _look(client), refresh=True)


async def _look(client: httpx.AsyncClient) -> RenderableType:
    """What there is to see now; whoever watches wants to see the instance come back, too."""
    try:
        return render(await ask_json(client, "/tree"))
    except InstanceError as error:
        return Text(f"waiting: {error}", style="yellow")


def render(node: Node) -> Tree:
    """The tree for people."""
    tree = Tree(_line(node), guide_style="dim")
    _add_children(tree, node)
    return tree


def _add_children(branch: Tree, node: Node) -> None:
    for child in node.get("children", ()):
        _add_children(branch.add(_line(child)), child)


def _line(node: Node) -> Text:
    return Text("  ").join(_words(node))


def _words(node: Node) -> Iterator[Text]:
    yield Text(node["id"], style="bold" if node["kind"] == "supervisor" else "")
    if "backing_off_s" in node:
        yield Text(f"backing off {node['backing_off_s']:.1f} s", style="yellow")
    else:
        yield Text(node["state"], style=STATE_STYLES.get(node["state"], "red"))
    yield Text(f"for {_duration(node['since_s'])}", style="dim")
    if node.get("strategy"):
        yield Text(node["strategy"], style="dim")
    if node["restarts"]:
        window = f"{node['restarts_in_window']}/{node['intensity']} in window"
        yield Text(f"restarts {node['restarts']} ({window})", style="yellow")
    if node.get("children_restarts_in_window"):
        spent = f"{node['children_restarts_in_window']}/{node['children_intensity']}"
        yield Text(f"restarts below {spent}", style="yellow")
    if "last_progress_s" in node:
        yield from _shard_words(node)
    if node.get("last_error"):
        error = " ".join(node["last_error"].split())
        yield Text(f"last: {error[:ERROR_CHARS_MAX]}", style="red")


def _shard_words(node: Node) -> Iterator[Text]:
    if node["mailbox_lag"]:
        yield Text(f"mailbox {node['mailbox_lag']}", style="cyan")
    if node["calls_in_flight"]:
        yield Text(f"calls {node['calls_in_flight']}", style="cyan")
    ago = _duration(node["last_progress_s"])
    if node["stalled"]:
        yield Text(f"no progress for {ago}", style="red")
    else:
        yield Text(f"progress {ago} ago", style="dim")


def _duration(duration_s: float) -> str:
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, seconds = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
