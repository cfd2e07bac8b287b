"""Runs a command: what goes wrong is one line on standard error and an exit code, never a traceback."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from messages.record import RecordError
from runtime import logs
from runtime.commands.client import InstanceError
from runtime.config_variables import LogLevel
from runtime.embedded import ServerEndedError
from runtime.log import LogError

EXIT_FAILED = 1
TOLD = (InstanceError, LogError, RecordError, ServerEndedError)
"""Errors whose message says to the person at the terminal what to do."""


def run(command: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Run a command to its end. A reader that has seen enough (`| head`) is no failure.

    Raises:
        SystemExit: something went wrong and has been told.
    """
    # The connection's ups and downs are no answer to what was asked.
    logs.configure(LogLevel.ERROR)
    try:
        trio.run(command, *args)
    except BaseException as error:  # noqa: BLE001 - a group of errors may be anything; unknown ones are raised again.
        _end(error)


def tell(message: object) -> None:
    """Say something beside what was asked for."""
    print(message, file=sys.stderr)


def _end(error: BaseException) -> None:
    """Exit as the first error says that is meant for people; raise what nobody expected."""
    for leaf in _leaves(error):
        match leaf:
            case BrokenPipeError():
                # Whatever is still buffered has nobody to go to, and must not fail at the exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return
            case KeyboardInterrupt():
                raise leaf
            case _ if isinstance(leaf, TOLD):
                tell(f"orders: {leaf}")
                sys.exit(getattr(leaf, "exit_code", EXIT_FAILED))
    raise error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
