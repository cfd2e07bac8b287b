"""What supervision tells the outside: one frozen value for each thing that happened, given to one hook.

A report carries the exception itself where there is one, for its traceback and its group, and a bounded text
of it that is safe to log. Do not keep reports: an exception holds the frames, and with them the arguments.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supervisors.errors import brief


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    path: str  # "actors/order/order.0"; the root supervisor is "/".
    at: float  # trio.current_time(), monotonic.


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStarted(Report):
    args: str  # Their shapes, not their values.
    restarts: int  # How often it had been restarted before.


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildIgnored(Report):
    """The child chose not to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded(Report):
    """The child ended by itself, in good order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStopped(Report):
    """The child ended because it was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport(Report):
    error: BaseException

    @property
    def error_text(self) -> str:
        return brief(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCrashed(ErrorReport):
    """The child ended abnormally, or fatally."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStartFailed(ErrorReport):
    """A child's first start failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartFailed(ErrorReport):
    """A child could not be started again; the attempt counts as a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownError(ErrorReport):
    """A child that had been asked to stop raised something else on its way down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartScheduled(Report):
    delay_s: float
    with_others: tuple[str, ...]  # The ids restarted for its sake.
    restarts_in_window: int
    intensity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildUnkillable(Report):
    stack: str  # Where the child sits.


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp(ErrorReport):
    """A supervisor restarted too often; it stops its children and fails upwards."""

    child_id: str
    restarts_in_window: int
    intensity: int
    period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorEnded(Report):
    """All children of a supervisor have ended, and it ends too."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnding(Report):
    """The last report: the exit code, and why, from the outermost error down to its origin."""

    code: int
    reason: str
    chain: tuple[str, ...] = ()


OnReport = Callable[[Report], None]


def tell(on_report: OnReport, report: Report) -> None:
    """Give a report to the hook. Who listens must not be able to break what it listens to."""
    try:
        on_report(report)
    except Exception:
        logging.getLogger(__name__).exception("on_report failed on a %s", type(report).__name__)


DEPTH_MAX = 2
ITEMS_MAX = 4
INT_MAX = 10**18  # Python refuses to print the largest ones.


def shapes(args: tuple[object, ...]) -> str:
    """Arguments as a log may show them: numbers and flags, of all else only type and size."""
    return f"({_shapes(args, DEPTH_MAX)})"


def _shapes(values: Sequence[object], depth: int) -> str:
    more = ", ..." if len(values) > ITEMS_MAX else ""
    return ", ".join(_shape(value, depth) for value in values[:ITEMS_MAX]) + more


def _shape(value: object, depth: int) -> str:
    # Texts, bytes and the values of mappings may be secrets, and a repr() may be anything.
    match value:
        case None | bool() | float():
            return repr(value)
        case int() if abs(value) < INT_MAX:
            return repr(value)
        case str() | bytes() | dict() | set() | frozenset():
            return f"{type(value).__name__}[{len(value)}]"
        case tuple() | list() if depth > 1:
            return f"{type(value).__name__}({_shapes(value, depth - 1)})"
        case _:
            return type(value).__name__
