"""The supervisor's mind: what happened to a child goes in, what follows from it is marked on the roster. No trio.

Whoever runs it calls one method or administration function at a time, each with the time, and then carries
out `roster.take_orders()`.
"""

from random import Random

from supervisors import reports, strategy
from supervisors.child import BEATS_MISSED_MAX, Child, Fate, Phase
from supervisors.errors import (
    Hung,
    MaxRestartsExceeded,
    NotStarted,
    Shutdown,
    StartFailed,
    StartTimeout,
    UnexpectedReturn,
    Unkillable,
    brief,
)
from supervisors.exits import Exit, ExitKind, is_restarted
from supervisors.roster import Roster
from supervisors.spec import IGNORE, AutoShutdown, Restart, Strategy


class Machine:
    def __init__(self, roster: Roster, rng: Random) -> None:
        self.roster = roster
        self._rng = rng

    def begin(self, now: float) -> None:
        self.roster.proceed(now)

    def stop(self, now: float) -> None:
        self.roster.end(None, now)
        self.roster.proceed(now)

    def interrupt(self, verdict: BaseException, now: float) -> None:
        """Stop, and end with this."""
        self.roster.end(verdict, now, is_fatal=True)
        self.roster.proceed(now)

    def started(self, child: Child, value: object, now: float) -> None:
        if child.phase is not Phase.STARTING:
            return  # It was cancelled before it got ready.
        child.enter(Phase.RUNNING, now)
        child.ready_at, child.born = now, True
        if child.spec.heartbeat_s is not None:
            self.roster.look_at(child, now + child.spec.heartbeat_s * BEATS_MISSED_MAX)
        self.roster.tell(
            reports.ChildStarted(
                path=self.roster.path_of(child),
                at=now,
                args=reports.shapes(child.spec.args),
                restarts=child.restarts,
            )
        )
        child.answer_by_hand(value)
        self.roster.proceed(now, child)

    def exited(self, child: Child, exit_: Exit, now: float) -> None:
        if child.ready_at is not None and now - child.ready_at >= self.roster.spec.backoff.stable_s:
            child.restarts_in_a_row = 0
        self.roster.gone(child, now)
        if exit_.kind in (ExitKind.ABNORMAL, ExitKind.FATAL) and exit_.error is not None:
            child.last_error = brief(exit_.error)
        if exit_.kind is ExitKind.FATAL:
            self._fatal(child, exit_, now)
        elif child.fate is not None:
            self._came_down(child, exit_, child.fate, now)
        elif child.ready_at is None:
            self._did_not_start(child, exit_, now)
        else:
            self._ended_by_itself(child, exit_, now)
        self.roster.proceed(now, child)

    def tick(self, now: float) -> None:
        """Act on every deadline that has passed."""
        while (child := self.roster.take_due(now)) is not None:
            match child.phase:
                case Phase.STARTING:
                    limit_s = child.spec.start_timeout_s
                    self._blame(child, StartTimeout(f"not ready within {limit_s:g} s"), now)
                case Phase.RUNNING:
                    self._feel_the_pulse(child, now)
                case Phase.STOPPING:
                    self.roster.abandon(child)
                case _:
                    self.roster.proceed(now, child)  # Its back-off is over.

    def crash(self, child: Child, error: Exception, now: float) -> None:
        """Cancel a child and count its end as this failure."""
        if child.phase in (Phase.STARTING, Phase.RUNNING) and child.fate is None:
            self._blame(child, error, now)

    def lost(self, child: Child, now: float) -> None:
        """Stop waiting for a child that cannot be ended: its supervisor, and so the process, must end."""
        if not child.alive:
            return
        self.roster.lose(child, now)
        child.answer_stopped()
        self.interrupt(Unkillable(f"{self.roster.path_of(child)} outlived its cancellation"), now)

    def hurry(self, cap_s: float, now: float) -> None:
        """Shorten the shutdown time of every worker, of those already stopping too."""
        self.roster.shutdown_cap_s = cap_s
        for child in self.roster.children.values():
            limit_s = child.stop_limit_s(cap_s)
            if child.phase is Phase.STOPPING and now + limit_s < child.deadline:
                self.roster.look_at(child, now + limit_s)

    # Ends.

    def _fatal(self, child: Child, exit_: Exit, now: float) -> None:
        assert exit_.error is not None
        self._tell_error(reports.ChildCrashed, child, exit_.error, now)
        child.answer_by_hand(error=StartFailed(child.id, exit_.error))
        child.answer_stopped()
        self.roster.end(exit_.error, now, is_fatal=True)

    def _came_down(self, child: Child, exit_: Exit, fate: Fate, now: float) -> None:
        if exit_.kind is ExitKind.ABNORMAL and exit_.error is not None:
            self._tell_error(reports.ShutdownError, child, exit_.error, now)
        else:
            self.roster.tell(reports.ChildStopped(path=self.roster.path_of(child), at=now))
        match fate:
            case Fate.REVIVE:
                self.roster.wait(child, child.due, now)
            case Fate.REST:
                child.answer_stopped()
            case Fate.DROP:
                self.roster.forget(child)
                child.answer_stopped()

    def _did_not_start(self, child: Child, exit_: Exit, now: float) -> None:
        if exit_.kind is ExitKind.IGNORED:
            self._ignored(child, now)
            return
        cause = child.blame or exit_.error or NotStarted("returned without calling started()")
        child.last_error = brief(cause)
        if child.born and child.by_hand is None:
            self._tell_error(reports.RestartFailed, child, cause, now)
            self._failed(child, cause, now)
            return
        self._tell_error(reports.ChildStartFailed, child, cause, now)
        failure = StartFailed(child.id, cause)
        if child.by_hand is None:
            self.roster.end(failure, now)
            return
        child.answer_by_hand(error=failure)
        if not child.born:
            self.roster.forget(child)

    def _ignored(self, child: Child, now: float) -> None:
        self.roster.tell(reports.ChildIgnored(path=self.roster.path_of(child), at=now))
        child.born = True
        is_dynamic = self.roster.spec.strategy is Strategy.DYNAMIC
        if is_dynamic or child.spec.restart is Restart.TEMPORARY:
            self.roster.forget(child)
        child.answer_by_hand(IGNORE)

    def _ended_by_itself(self, child: Child, exit_: Exit, now: float) -> None:
        error = child.blame or (exit_.error if exit_.kind is ExitKind.ABNORMAL else None)
        if error is None:
            self.roster.tell(reports.ChildEnded(path=self.roster.path_of(child), at=now))
        else:
            child.last_error = brief(error)
            self._tell_error(reports.ChildCrashed, child, error, now)
        kind = ExitKind.NORMAL if error is None else ExitKind.ABNORMAL
        if is_restarted(child.spec.restart, kind):
            returned = UnexpectedReturn(f"permanent child {child.id!r} returned")
            self._failed(child, error or exit_.error or returned, now)
            return
        if child.spec.restart is Restart.TEMPORARY:
            self.roster.forget(child)
        if child.spec.significant:
            self._significant_ended(child, now)

    def _significant_ended(self, child: Child, now: float) -> None:
        others = (other for other in self.roster.children.values() if other is not child)
        others_left = any(c.spec.significant and c.phase is not Phase.IDLE for c in others)
        match self.roster.spec.auto_shutdown:
            case AutoShutdown.ANY_SIGNIFICANT:
                pass
            case AutoShutdown.ALL_SIGNIFICANT if not others_left:
                pass
            case _:
                return
        self.roster.end(Shutdown(f"significant child {child.id!r} ended"), now)

    # Failures.

    def _failed(self, child: Child, error: BaseException, now: float) -> None:
        """Count a restart, and schedule it or give up."""
        roster, backoff = self.roster, self.roster.spec.backoff
        roster.window = roster.window.add(now, child.id)
        if roster.window.exceeded or backoff.exhausted(child.restarts_in_a_row):
            self._give_up(child, error, now)
            return
        delay_s = backoff.delay_s(child.restarts_in_a_row, self._rng)
        child.restarts += 1
        child.restarts_in_a_row += 1
        roster.wait(child, now + delay_s, now)
        family = strategy.bystanders(roster.spec.strategy, list(roster.children.values()), child)
        others = [other for other in family if not other.stopped]
        for other in others:
            self._restart_along(other, now + delay_s, now)
        roster.tell(
            reports.RestartScheduled(
                path=roster.path_of(child),
                at=now,
                delay_s=delay_s,
                with_others=tuple(other.id for other in others),
                restarts_in_window=roster.window.count(now),
                intensity=roster.spec.intensity,
            )
        )

    def _restart_along(self, other: Child, due: float, now: float) -> None:
        """Take a bystander into the restart; an earlier back-off of its own is void."""
        if other.alive:
            is_temporary = other.spec.restart is Restart.TEMPORARY
            other.fate = other.fate or (Fate.DROP if is_temporary else Fate.REVIVE)
            other.due = due
        elif other.phase in (Phase.WAITING, Phase.IDLE):
            self.roster.wait(other, due, now)

    def _give_up(self, child: Child, error: BaseException, now: float) -> None:
        roster, spec = self.roster, self.roster.spec
        child.escalated = True
        if roster.window.exceeded:
            reason = f"more than {spec.intensity} restarts in {spec.period_s:g} s"
        else:
            reason = (
                f"{child.id!r} restarted {child.restarts_in_a_row} times without becoming stable"
            )
        roster.tell(
            reports.GaveUp(
                path=roster.path,
                at=now,
                error=error,
                child_id=child.id,
                restarts_in_window=roster.window.count(now),
                intensity=spec.intensity,
                period_s=spec.period_s,
            )
        )
        roster.end(MaxRestartsExceeded(roster.path, reason, error), now)

    def _feel_the_pulse(self, child: Child, now: float) -> None:
        if child.life is None or child.ready_at is None or child.spec.heartbeat_s is None:
            return
        limit_s = child.spec.heartbeat_s * BEATS_MISSED_MAX
        last_seen = max(child.ready_at, child.life.last_beat)
        if now >= last_seen + limit_s:
            self._blame(child, Hung(f"no heartbeat for {limit_s:g} s"), now)
        else:
            self.roster.look_at(child, last_seen + limit_s)

    def _blame(self, child: Child, error: Exception, now: float) -> None:
        child.blame = error
        self.roster.cancel(child, now)

    def _tell_error(
        self, kind: type[reports.ErrorReport], child: Child, error: BaseException, now: float
    ) -> None:
        self.roster.tell(kind(path=self.roster.path_of(child), at=now, error=error))
