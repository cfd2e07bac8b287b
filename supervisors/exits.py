"""How a child's end is judged: normal, abnormal or fatal. Pure; the table the whole library rests on.

| the child ...                                             | its end is |
|-----------------------------------------------------------|------------|
| returns, or raises `Shutdown`                             | normal     |
| is cancelled by its supervisor                            | normal     |
| lets a `Cancelled` escape that nobody asked for           | abnormal   |
| raises any other `Exception`                              | abnormal   |
| raises what is marked never-restart                       | fatal      |
| raises `KeyboardInterrupt`, `SystemExit`, `BaseException` | fatal      |

A group is judged by its leaves: one fatal leaf makes it fatal; it is normal if all leaves are.
"""

from dataclasses import dataclass
from enum import Enum

import trio

from supervisors.errors import ConfigError, Shutdown, StrayCancellation, leaves
from supervisors.spec import Restart


class ExitKind(Enum):
    NORMAL = "normal"
    ABNORMAL = "abnormal"
    FATAL = "fatal"  # Never restarted: it stops the supervisor and goes on upwards, unchanged.
    IGNORED = "ignored"  # The child chose not to start.


@dataclass(frozen=True, slots=True)
class Exit:
    kind: ExitKind
    error: BaseException | None = None


def classify(
    error: BaseException | None,
    *,
    cancelled: bool,
    never_restart: tuple[type[BaseException], ...] = (),
) -> Exit:
    """Judge what came out of a child; `cancelled` tells whether its supervisor had asked it to end."""
    if error is None:
        return Exit(ExitKind.NORMAL)
    ends = [_judge(leaf, cancelled, (ConfigError, *never_restart)) for leaf in leaves(error)]
    if ExitKind.FATAL in ends:
        return Exit(ExitKind.FATAL, error)
    if ExitKind.ABNORMAL not in ends:
        return Exit(ExitKind.NORMAL, error)
    if all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
        stray = StrayCancellation("a Cancelled escaped that the supervisor had not asked for")
        stray.__cause__ = error
        return Exit(ExitKind.ABNORMAL, stray)
    return Exit(ExitKind.ABNORMAL, error)


def is_restarted(restart: Restart, kind: ExitKind) -> bool:
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return kind is ExitKind.ABNORMAL
        case Restart.TEMPORARY:
            return False


def _judge(
    leaf: BaseException, cancelled: bool, never_restart: tuple[type[BaseException], ...]
) -> ExitKind:
    if isinstance(leaf, trio.Cancelled):
        return ExitKind.NORMAL if cancelled else ExitKind.ABNORMAL
    if isinstance(leaf, never_restart) or not isinstance(leaf, Exception):
        return ExitKind.FATAL
    return ExitKind.NORMAL if isinstance(leaf, Shutdown) else ExitKind.ABNORMAL
