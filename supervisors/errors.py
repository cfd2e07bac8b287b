"""Everything that supervision raises: one class per cause, one base for each family."""

from collections.abc import Iterator
from itertools import islice

import trio


class SupervisionFault(Exception):  # noqa: N818 - so that its children may be named after what happened
    """Base of every error of this library that an `except Exception` should see."""


class ConfigError(SupervisionFault):
    """A spec that cannot work. Nothing was started, and no restart would cure it."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


# What a child's end is called.


class Shutdown(SupervisionFault):
    """Raised by a child that ends in good order, whatever its reason: a normal end."""


class StrayCancellation(SupervisionFault):
    """A child let a `trio.Cancelled` escape although its supervisor had not cancelled it."""


class Hung(SupervisionFault):
    """A child missed three heartbeats in a row."""


class StartTimeout(SupervisionFault):
    """A child did not call `task_status.started()` in time."""


class NotStarted(SupervisionFault):
    """A child returned without ever calling `task_status.started()`."""


class UnexpectedReturn(SupervisionFault):
    """A permanent child returned; the cause of a restart that no exception explains."""


# How a supervisor ends.


class StartFailed(SupervisionFault):
    """A child could not be started; what had been started before it was stopped again.

    The child's own exception is the `__cause__`.
    """

    def __init__(self, child_id: str, cause: BaseException) -> None:
        super().__init__(f"child {child_id!r} did not start: {brief(cause)}")
        self.child_id = child_id
        self.cause = cause
        self.__cause__ = cause


class MaxRestartsExceeded(SupervisionFault):
    """A supervisor gave up on its children; the last failure is the `__cause__`.

    OTP ends with the reason `shutdown` here, so a transient parent entry lets the subtree die quietly. This
    is an abnormal end, so that every parent acts on it and the process does not end with success.
    """

    def __init__(self, path: str, reason: str, cause: BaseException) -> None:
        super().__init__(f"supervisor {path!r} gave up: {reason}; last failure: {brief(cause)}")
        self.path = path
        self.cause = cause
        self.__cause__ = cause


class Unkillable(BaseException):
    """A child outlived its cancellation: trio cannot end it, so only the process can."""


class MemoryExhausted(BaseException):
    """Memory ran out twice within a minute, or in a supervisor: only a new process helps."""


# What administration answers.


class AdminFault(SupervisionFault):
    """Base of the refusals of `start_child`, `stop_child`, `restart_child` and `delete_child`."""

    def __init__(self, child_id: str) -> None:
        super().__init__(f"{child_id!r}: {(self.__doc__ or '').splitlines()[0]}")
        self.child_id = child_id


class NotFound(AdminFault):
    """No child has this id here; `which_children()` lists those that exist."""


class AlreadyStarted(AdminFault):
    """A child with this id is running or being restarted."""


class AlreadyPresent(AdminFault):
    """A stopped child with this id is kept; use `restart_child` or `delete_child`."""


class Running(AdminFault):
    """The child is running; stop it first."""


class Restarting(AdminFault):
    """The child is waiting for its restart; stop it first."""


class NotDynamic(AdminFault):
    """Instances are started by a DYNAMIC supervisor only; use `start_child`."""


class IsDynamic(AdminFault):
    """A DYNAMIC supervisor has instances instead of specs: `start_instance`, `stop_child`."""


class SupervisorStopped(AdminFault):
    """The supervisor is stopping or has stopped."""


TEXT_MAX = 500  # Enough to recognise an error; its full text may be of any size.
LEAVES_MAX = 3


def brief(error: BaseException) -> str:
    """One bounded text for any exception, even one that cannot describe itself."""
    if not isinstance(error, BaseExceptionGroup):
        return _cut(_describe(error))
    shown = [_cut(_describe(leaf)) for leaf in islice(leaves(error), LEAVES_MAX + 1)]
    if len(shown) > LEAVES_MAX:
        shown[-1] = "..."
    return _cut(f"{type(error).__qualname__} of {'; '.join(shown)}")


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group, however deep; of any other exception, itself."""
    waiting = [error]
    while waiting:  # Not recursive: how deep a stranger's group goes is not ours to trust.
        current = waiting.pop()
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(reversed(current.exceptions))
        else:
            yield current


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it says it was caused by, down to the origin."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _describe(error: BaseException) -> str:
    name = type(error).__qualname__
    if isinstance(error, trio.Cancelled):
        return name  # Its text is trio's bookkeeping.
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - the text of a stranger's exception may do anything
        text = f"<its text raised {type(broken).__qualname__}>"
    return f"{name}: {text[:TEXT_MAX]}" if text else name


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"
