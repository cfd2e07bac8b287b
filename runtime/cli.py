"""The command line. Each command is a thin face on a module of its own, imported when it is used."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli_dead import dead
from runtime.cli_fault import fault, seconds
from runtime.config import ConfigError, load

EXIT_FAILED = 1

app = typer.Typer(
    name="orders",
    help="Order processing that loses nothing: supervised actors on NATS JetStream. Configured by the environment.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stock = typer.Typer(help="Set and list the stock of a running instance.", no_args_is_help=True)
app.add_typer(stock, name="stock")
app.add_typer(fault, name="fault")
app.add_typer(dead, name="dead")

export = typer.Typer(
    help="Write what the broker has as JSON lines. No instance needs to run: without NATS_URL the"
    " embedded server is started on the store for as long as it takes.",
    no_args_is_help=True,
)
app.add_typer(export, name="export")

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]


def main() -> None:
    """Run a command; bad configuration is told in full and exits with 78."""
    try:
        app(prog_name="orders")
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Without a command: run."""
    if context.invoked_subcommand is None:
        run()


@app.command()
def run() -> None:
    """Run one instance: actors, HTTP, and a nats-server of its own when NATS_URL is unset."""
    from runtime.instance import run_instance

    sys.exit(run_instance(load()))


@app.command()
def place(
    file: Annotated[
        typer.FileBinaryRead | None,
        typer.Argument(help="JSON lines, or the retail CSV; - is standard input."),
    ] = None,
    excerpt: Annotated[
        bool, typer.Option("--excerpt", help="Place the orders that ship with this.")
    ] = False,
    at_a_time: Annotated[
        int, typer.Option("--concurrency", min=1, max=500, help="Requests under way at a time.")
    ] = 32,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to repeat a request that gets no answer.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Place the orders of a file on a running instance, and print what became of them.

    JSON lines hold the body of one POST /orders each, with an "idempotency_key" beside its fields where one is wanted.
    Without one, the same line of the same file is the same order however often it is placed.

    Exits with 1 if something was not answered; placing the file again places nothing twice.
    """
    from runtime.commands.place import open_excerpt, place
    from runtime.commands.placing import Pace
    from runtime.commands.running import run
    from runtime.order_files import read_orders
    from runtime.retail import RetailFormatError

    if excerpt is (file is not None):
        raise typer.BadParameter("give a FILE, or --excerpt")
    with file or open_excerpt() as source:
        try:
            wanted = read_orders(source, Path(source.name).name)
        except RetailFormatError as error:
            raise typer.BadParameter(f"{source.name}: {error}") from error
        run(place, load(), source, wanted, Pace(at_a_time, patience), as_json)


@app.command()
def show(
    order_id: Annotated[str, typer.Argument(help="As the answer to POST /orders gave it.")],
    as_json: AsJson = False,
) -> None:
    """Show one order: status, items, total, payment, reservation, history, trace.

    It is asked of the running instance; where none runs, it is read from the broker alone.
    """
    from runtime.commands.running import run
    from runtime.commands.show import show
    from runtime.desk_types import ORDER_ID

    if not ORDER_ID.fullmatch(order_id):
        raise typer.BadParameter(f"{order_id!r} is no order id: 1 to 128 of A-Z a-z 0-9 - _")
    run(show, load(), order_id, as_json)


@app.command()
def tree(
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the supervision tree: state, restarts, back-off, last error and mailbox lag of every child."""
    from runtime.commands.running import run
    from runtime.commands.tree import show_tree

    if watch and as_json:
        raise typer.BadParameter("give --watch or --json, not both")
    run(show_tree, load(), as_json, watch)


@stock.command("set")
def stock_set(
    levels: Annotated[
        list[str] | None, typer.Argument(metavar="SKU=N ...", help="Units on hand, by SKU.")
    ] = None,
    excerpt: Annotated[
        bool, typer.Option("--excerpt", help="Stock the shop for the orders that ship with this.")
    ] = False,
) -> None:
    """Set how many units of stock items are on hand. What is reserved stays reserved."""
    from runtime.commands.running import run
    from runtime.commands.stock import LevelError, levels_of_excerpt, parse_levels, set_stock

    if excerpt is bool(levels):
        raise typer.BadParameter("give SKU=N, once or more often, or --excerpt")
    try:
        wanted = levels_of_excerpt() if excerpt else parse_levels(levels or ())
    except LevelError as error:
        raise typer.BadParameter(str(error)) from error
    run(set_stock, load(), wanted)


@stock.command("list")
def stock_list(as_json: AsJson = False) -> None:
    """List every stock item: on hand, reserved, available, sold, and all that was ever put on the shelf."""
    from runtime.commands.running import run
    from runtime.commands.stock import list_stock

    run(list_stock, load(), as_json)


@export.command("events")
def export_events() -> None:
    """Every fact in the log, in its order. An order placed over HTTP begins with its OrderOpened."""
    from runtime.commands.export import export_events
    from runtime.commands.running import run

    run(export_events, load())


@export.command("orders")
def export_orders() -> None:
    """The newest public view of every order, finished or not, from the journals."""
    from runtime.commands.export import export_orders
    from runtime.commands.running import run

    run(export_orders, load())


@export.command("stock")
def export_stock() -> None:
    """The levels of every stock item."""
    from runtime.commands.export import export_stock
    from runtime.commands.running import run

    run(export_stock, load())


@export.command("dead-letters")
def export_dead_letters() -> None:
    """What was set aside, each once, and why."""
    from runtime.commands.export import export_letters
    from runtime.commands.running import run

    run(export_letters, load())


@app.command()
def describe() -> None:
    """Print streams, subjects, message types, actors and variables as JSON; needs no broker."""
    from runtime.commands.describe import describe
    from runtime.commands.running import run

    run(describe, load())


@app.command()
def audit(
    journal: Annotated[
        Path | None, typer.Option(help="What clients were told: JSON lines, one an attempt.")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="The payment provider's ledger. The built-in one's is found by itself."),
    ] = None,
    marks: Annotated[
        Path | None, typer.Option(help="The faults that were injected: JSON lines.")
    ] = None,
    traces: Annotated[
        list[Path] | None, typer.Option(help="A trace file (ORDERS_TRACE_FILE); repeatable.")
    ] = None,
    logs: Annotated[
        list[Path] | None, typer.Option(help="An instance's or a broker's log; repeatable.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the run, as SVG or PNG by the file's ending.")
    ] = None,
    running: Annotated[
        bool | None,
        typer.Option(
            "--running/--at-rest",
            help="Whether orders may still be on their way.",
            show_default="whether an instance runs",
        ),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="The journal has every request ever made.")
    ] = False,
    outage: Annotated[
        bool, typer.Option("--outage", help="A provider that was away explains parked orders.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every invariant on the whole log, with or without an instance running.

    Exits with 0 if all that could be checked holds, 1 if an invariant is broken, 3 if nothing can be said, for
    instance of an empty log; 2 if a file is not what it should be.
    """
    from runtime.commands.audit import Wanted, audit_log, check_picture
    from runtime.commands.running import run

    if picture is not None:
        try:
            check_picture(picture)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--picture") from error
    wanted = Wanted(
        journal,
        ledger,
        marks,
        traces or (),
        logs or (),
        picture,
        running,
        complete,
        outage,
        as_json,
    )
    run(audit_log, load(), wanted)


@app.command()
def demo(
    orders: Annotated[int, typer.Option(min=2, help="At most so many of the excerpt's.")] = 10_000,
    clients: Annotated[int, typer.Option(min=1, max=200, help="Customers at a time.")] = 16,
    keep: Annotated[
        Path | None,
        typer.Option(help="A new or empty directory that keeps the store and the logs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, the result alone.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Logs on stderr.")] = False,
) -> None:
    """Place real orders, crash every actor and the broker half-way, and show that nothing is lost."""
    from runtime.demo import demo

    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise typer.BadParameter(f"neither new nor empty: {keep}", param_hint="--keep")
    sys.exit(
        demo(
            orders_max=orders,
            clients=clients,
            keep=keep,
            as_json=as_json,
            quiet=quiet,
            verbose=verbose,
        )
    )


@app.command()
def bench(
    rows: Annotated[
        str, typer.Option(help="short, all, or some of them with commas between.")
    ] = "short",
    orders: Annotated[
        int, typer.Option(min=1, help="Orders placed as fast as they are confirmed.")
    ] = 20_000,
    in_flight: Annotated[int, typer.Option(min=1, help="How many of them at a time.")] = 256,
    paced: Annotated[int, typer.Option(min=1, help="Orders placed at a fixed rate.")] = 500,
    rate: Annotated[float, typer.Option(min=0.1, help="That rate, in orders per second.")] = 50.0,
    connections: Annotated[int, typer.Option(min=1, help="Over HTTP, at a time.")] = 64,
    live: Annotated[
        int, typer.Option(min=1, help="Unfinished orders, for memory and recovery.")
    ] = 10_000,
    until: Annotated[
        int, typer.Option(min=1_000, help="Finished orders at the end of growth.")
    ] = 100_000,
    pairs: Annotated[int, typer.Option(min=1, help="Paired runs, for the ratios.")] = 5,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the figures into this .svg or .png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure an instance of its own from outside, on a broker and a store of its own.

    Short are throughput by ask and by ORDER.created.*, latency, HTTP, memory, and what the channel to the instance
    costs: two minutes. Lines, growth, recovery and ratios take longer.
    """
    from runtime.bench import Plan
    from runtime.bench.plots import check_picture
    from runtime.commands.bench import measure, parse_rows

    try:
        wanted = parse_rows(rows)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rows") from error
    if picture is not None:
        try:
            check_picture(picture, wanted)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--picture") from error
    plan = Plan(
        orders=orders,
        in_flight=in_flight,
        paced=paced,
        rate_hz=rate,
        connections=connections,
        live=live,
        until=until,
        pairs=pairs,
    )
    measure(plan, wanted, picture, as_json)


@app.command()
def chaos(
    row: Annotated[
        list[str] | None, typer.Option("--row", metavar="F1", help="Once or more often.")
    ] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="Every row that applies.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Show the rows, and run none.")] = False,
    brokers: Annotated[int, typer.Option(help="1, or a cluster of 3.")] = 1,
    faults: Annotated[int | None, typer.Option(min=0, help="So many; else the row's own.")] = None,
    orders: Annotated[int, typer.Option(min=0, help="At least so many.")] = 0,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="New orders a second.")] = 20.0,
    lasts: Annotated[
        float, typer.Option("--for", parser=seconds, metavar="DURATION", help="At least so long.")
    ] = "1s",  # type: ignore[assignment]  # The parser is given the default, too.
    seed: Annotated[int | None, typer.Option(help="Of what is left to chance.")] = None,
    long: Annotated[bool, typer.Option("--long", help="Also faults of minutes each.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Keep all of it there; else only what went wrong is kept.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Break real processes under load, heal, and audit: brokers, an instance, a payment provider, customers.

    Prints a line a row. Exits with 1 if an order was lost, somebody was charged twice or anything else that is promised
    did not hold; with 3 if less happened than was planned, which proves nothing.
    """
    from runtime.chaos.row import Options
    from runtime.commands import chaos as campaigns

    if show:
        campaigns.list_rows()
        return
    if brokers not in (1, 3):
        raise typer.BadParameter("write 1 or 3", param_hint="--brokers")
    if all_rows is bool(row):
        raise typer.BadParameter("give --row, once or more often, or --all, or --list")
    try:
        rows = campaigns.chosen_rows(row or (), brokers)
    except campaigns.NoSuchRowError as error:
        raise typer.BadParameter(str(error), param_hint="--row") from error
    options = Options(
        campaigns.make_directory(out),
        brokers=brokers,
        faults=faults,
        orders=orders,
        rate=rate,
        for_s=lasts,
        seed=campaigns.new_seed() if seed is None else seed,
        long=long,
        draws=out is not None,
    )
    sys.exit(campaigns.chaos(rows, options, keep=out is not None, as_json=as_json))


@app.command()
def explore(
    seeds: Annotated[int, typer.Option(min=1, help="How many runs.")] = 1_000,
    first: Annotated[int, typer.Option(min=0, metavar="SEED", help="Of the first of them.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes at a time.")] = 1,
    limit_s: Annotated[
        float | None,
        typer.Option(
            "--time", parser=seconds, metavar="DURATION", help="Begin none after so long."
        ),
    ] = None,
    replay: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="Play this one again, and tell it.")
    ] = None,
    small: Annotated[
        bool, typer.Option("--shrink", help="Cut a failing run down to what it needs to fail.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Simulate: real actors and supervisors, a log in memory, virtual time, faults drawn from seeds; every run audited.

    The same seed is the same run, to the byte. Exits with 1 if an invariant was broken, with 3 if none was but
    something that should happen sometimes never did.
    """
    from runtime.commands.explore import run_explore, run_replay

    if replay is not None:
        sys.exit(run_replay(replay, shrinks=small))
    sys.exit(run_explore(seeds, first, jobs, limit_s, shrinks=small, as_json=as_json))


if __name__ == "__main__":
    main()
