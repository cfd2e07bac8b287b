"""The command line. Each command is a thin face on a module of its own, imported when it is used."""

import sys

import typer

from runtime.config import ConfigError, load

EXIT_FAILED = 1

app = typer.Typer(
    name="orders",
    help="Order processing that loses nothing: supervised actors on NATS JetStream. Configured by the environment.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run a command; bad configuration is told in full and exits with 78."""
    try:
        app()
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


if __name__ == "__main__":
    main()
