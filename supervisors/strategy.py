"""Who goes down with whom, and in which order they go and come back. Pure: reads the children, changes nothing."""

from collections.abc import Sequence

from supervisors.child import Child, Phase
from supervisors.spec import Strategy


def is_ordered(strategy: Strategy) -> bool:
    """Whether children depend on each other, so that they stop and start one at a time."""
    return strategy in (Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE)


def bystanders(strategy: Strategy, children: Sequence[Child], failed: Child) -> Sequence[Child]:
    """The others that are restarted because one child failed."""
    match strategy:
        case Strategy.ONE_FOR_ALL:
            return [child for child in children if child is not failed]
        case Strategy.REST_FOR_ONE:
            return children[children.index(failed) + 1 :]
        case Strategy.ONE_FOR_ONE | Strategy.DYNAMIC:
            return []


def next_to_stop(children: Sequence[Child], *, one_at_a_time: bool) -> Sequence[Child]:
    """Those to be cancelled now: the last one started first, the next only when it has ended."""
    down = [child for child in children if child.going_down]
    if not one_at_a_time:
        return [child for child in down if child.phase is not Phase.STOPPING]
    if any(child.phase is Phase.STOPPING for child in down):
        return []
    return down[-1:]


def next_in_order(children: Sequence[Child], now: float) -> Sequence[Child]:
    """The child to be started now where each depends on those before it."""
    if any(child.going_down for child in children):
        return []
    for child in children:
        if child.phase is Phase.WAITING:
            return [child] if child.due <= now else []
        if child.phase in (Phase.STARTING, Phase.STOPPING):
            return []
    return []


def next_at_boot(children: Sequence[Child], now: float) -> Sequence[Child]:
    """Those to be started during the first start where each is independent.

    Newcomers start one after the other; what failed meanwhile is restarted beside them.
    """
    due = [child for child in children if child.phase is Phase.WAITING and child.due <= now]
    restarts = [child for child in due if child.born]
    if any(child.alive and not child.born for child in children):
        return restarts
    newcomers = [child for child in due if not child.born]
    return restarts + newcomers[:1]


def due(children: Sequence[Child], now: float) -> Sequence[Child]:
    """Those to be started now where each is independent and all have been started once."""
    return [child for child in children if child.phase is Phase.WAITING and child.due <= now]
