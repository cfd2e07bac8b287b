"""`orders fault ...`: the command line of fault injection."""

from typing import Annotated

import typer
from environs import ValidationError

from runtime.config import load
from runtime.config_parsers import duration

fault = typer.Typer(
    help="Make a running instance fail on purpose, and watch. It has to run with FAULTS=on.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]


def seconds(text: str) -> float:
    """A duration as the environment takes it, too."""
    try:
        return duration(text)
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from error


@fault.command("list")
def fault_list(as_json: AsJson = False) -> None:
    """List every point with what it carries, every action, and what is armed."""
    from runtime.commands.fault import list_faults
    from runtime.commands.running import run

    run(list_faults, load(), as_json)


@fault.command("inject")
def fault_inject(
    point: Annotated[str, typer.Argument(help="Where; `orders fault list` shows them.")],
    action: Annotated[str, typer.Argument(help="What; the same list shows them.")],
    actor: Annotated[str | None, typer.Option(help="Only there.")] = None,
    shard: Annotated[int | None, typer.Option(help="Only there.")] = None,
    fact: Annotated[str | None, typer.Option(help="Only for facts of this type.")] = None,
    order: Annotated[str | None, typer.Option(help="Only for this order id.")] = None,
    times: Annotated[int, typer.Option(help="At most so often.")] = 1,
    probability: Annotated[float, typer.Option(help="Each time with this chance.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of those chances, so that a run repeats.")] = 0,
    armed_for: Annotated[
        float, typer.Option("--for", parser=seconds, metavar="DURATION", help="Then it is over.")
    ] = "60s",  # type: ignore[assignment]  # The parser is given the default, too.
    lasting: Annotated[
        float,
        typer.Option(
            "--duration", parser=seconds, metavar="DURATION", help="Of delay, block, pause-broker."
        ),
    ] = "1s",  # type: ignore[assignment]
    code: Annotated[int, typer.Option(help="Of exit.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Arm a fault: it happens when the point is passed next, once, within a minute, unless you say otherwise."""
    from runtime.commands.fault import inject_fault
    from runtime.commands.running import run

    selectors = {"actor": actor, "shard": shard, "fact": fact, "order": order}
    wanted = {
        "point": point,
        "action": action,
        **{name: value for name, value in selectors.items() if value is not None},
        "times": times,
        "probability": probability,
        "seed": seed,
        "for_s": armed_for,
        "duration_s": lasting,
        "code": code,
    }
    run(inject_fault, load(), wanted, as_json)


@fault.command("clear")
def fault_clear(
    fault_id: Annotated[str | None, typer.Argument(help="Of one; else all of them.")] = None,
) -> None:
    """Disarm a fault, or all of them; whoever hangs in it goes on."""
    from runtime.commands.fault import clear_faults
    from runtime.commands.running import run

    run(clear_faults, load(), fault_id)
