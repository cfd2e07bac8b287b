"""What may be asked of a running supervisor: start, stop, restart and delete a child. No trio.

Each function changes the roster and returns; the answer is given when the thing has happened. A refusal is
raised at once.
"""

from dataclasses import replace

from supervisors.child import Answer, Child, Fate, Phase
from supervisors.errors import (
    AlreadyPresent,
    AlreadyStarted,
    IsDynamic,
    NotDynamic,
    NotFound,
    Restarting,
    Running,
    SupervisorStopped,
)
from supervisors.roster import Mode, Roster
from supervisors.spec import ChildSpec, Restart, Strategy, check_child


def start_child(roster: Roster, answer: Answer, now: float, *, spec: ChildSpec) -> None:
    _refuse_if_dynamic(roster, spec.id)
    check_child(spec, roster.spec.auto_shutdown)
    _refuse_if_ending(roster, spec.id)
    if (present := roster.children.get(spec.id)) is not None:
        raise AlreadyPresent(spec.id) if present.phase is Phase.IDLE else AlreadyStarted(spec.id)
    _start_new(roster, spec, answer, now)


def start_instance(roster: Roster, answer: Answer, now: float, *, args: tuple[object, ...]) -> None:
    """Start one more child of a DYNAMIC supervisor's template, `args` added to the template's."""
    template = roster.spec.template
    if template is None:
        raise NotDynamic(roster.path)
    _refuse_if_ending(roster, template.id)
    spec = replace(
        template, id=f"{template.id}#{next(roster.instance_numbers)}", args=(*template.args, *args)
    )
    _start_new(roster, spec, answer, now)


def stop_child(roster: Roster, answer: Answer, now: float, *, child_id: str) -> None:
    """Stop a child and keep its spec, unless it is temporary or an instance; a stopped one is fine too."""
    child = find(roster, child_id)
    if child.phase is Phase.LOST:
        answer.give(None)
        return
    child.awaiting_stop.append(answer)
    if child.alive:
        child.fate = Fate.DROP if _is_forgotten(roster, child.spec) else Fate.REST
    else:
        roster.rest(child, now)
        if _is_forgotten(roster, child.spec):
            roster.forget(child)
    roster.proceed(now, child)


def restart_child(roster: Roster, answer: Answer, now: float, *, child_id: str) -> None:
    """Start a child again that is not running."""
    _refuse_if_dynamic(roster, child_id)
    child = _find_idle(roster, child_id)
    _refuse_if_ending(roster, child_id)
    child.by_hand = answer
    roster.wait(child, now, now)
    roster.proceed(now, child)


def delete_child(roster: Roster, answer: Answer, _now: float, *, child_id: str) -> None:
    """Forget a child that is not running."""
    _refuse_if_dynamic(roster, child_id)
    roster.forget(_find_idle(roster, child_id))
    answer.give(None)


def withdraw(roster: Roster, answer: Answer, now: float) -> None:
    """Take back a start by hand whose caller does not wait any more."""
    for child in list(roster.children.values()):
        if child.by_hand is not answer:
            continue
        child.by_hand = None
        forgotten = not child.born or _is_forgotten(roster, child.spec)
        if child.alive:
            child.fate = Fate.DROP if forgotten else Fate.REST
        else:
            roster.rest(child, now)
            if forgotten:
                roster.forget(child)
        roster.proceed(now, child)


def find(roster: Roster, child_id: str) -> Child:
    child = roster.children.get(child_id)
    if child is None:
        raise NotFound(child_id)
    return child


def _start_new(roster: Roster, spec: ChildSpec, answer: Answer, now: float) -> None:
    child = Child(spec, now, by_hand=answer)
    roster.add(child)
    roster.wait(child, now, now)
    roster.proceed(now, child)


def _find_idle(roster: Roster, child_id: str) -> Child:
    child = find(roster, child_id)
    if child.phase is Phase.WAITING:
        raise Restarting(child_id)
    if child.phase is not Phase.IDLE:
        raise Running(child_id)
    return child


def _is_forgotten(roster: Roster, spec: ChildSpec) -> bool:
    return spec.restart is Restart.TEMPORARY or roster.spec.strategy is Strategy.DYNAMIC


def _refuse_if_dynamic(roster: Roster, child_id: str) -> None:
    if roster.spec.strategy is Strategy.DYNAMIC:
        raise IsDynamic(child_id)


def _refuse_if_ending(roster: Roster, child_id: str) -> None:
    if roster.mode in (Mode.ENDING, Mode.ENDED):
        raise SupervisorStopped(child_id)
