"""`orders dead ...`: the command line of dead letters."""

from typing import Annotated

import typer

from runtime.cli_fault import seconds
from runtime.config import load

dead = typer.Typer(
    help="Dead letters: what was set aside because it could not be read, or failed too often. No instance needs to"
    " run; one that does hears of a replay by itself.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID ...", help="Of `orders dead list`.")]
Every = Annotated[bool, typer.Option("--all", help="Every open one.")]
Anew = Annotated[bool, typer.Option("--again", help="Also what has been decided already.")]


@dead.command("list")
def dead_list(
    actor: Annotated[
        str | None, typer.Option(help="Of this actor, or of one shard (order.1).")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="With this text in the reason.")] = None,
    since: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Of the last 2h, 7d.")
    ] = None,
    with_decided: Annotated[bool, typer.Option("--all", help="Decided ones, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the open dead letters, oldest first."""
    from runtime.commands.dead import Filter, list_letters
    from runtime.commands.running import run

    run(list_letters, load(), Filter(actor, reason, since, with_decided), as_json)


@dead.command("show")
def dead_show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Of `orders dead list`.")],
    as_json: AsJson = False,
) -> None:
    """Show one: its reason, where it stands, its body where it can be read, and what was decided."""
    from runtime.commands.dead import show_letter
    from runtime.commands.running import run

    run(show_letter, load(), letter_id, as_json)


@dead.command("replay")
def dead_replay(ids: Ids = None, every: Every = False, anew: Anew = False) -> None:
    """Let the shard hear it again. What fails again is set aside again; what was done already is not done twice."""
    from runtime.commands.dead import replay_letters
    from runtime.commands.running import run

    run(replay_letters, load(), _chosen(ids, every), anew)


@dead.command("drop")
def dead_drop(
    reason: Annotated[str, typer.Option(help="Why; it is kept beside the letter.")],
    ids: Ids = None,
    every: Every = False,
    anew: Anew = False,
) -> None:
    """Decide that it is not to be heard. The letter stays in the log, and in `list --all`."""
    from runtime.commands.dead import drop_letters
    from runtime.commands.running import run

    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    run(drop_letters, load(), _chosen(ids, every), reason, anew)


def _chosen(ids: list[str] | None, every: bool) -> list[str]:
    """The ids without repetition; none for all of them."""
    if every is bool(ids):
        raise typer.BadParameter("give an ID, once or more often, or --all")
    return list(dict.fromkeys(ids or ()))
