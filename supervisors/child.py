"""One child as its supervisor sees it: the only mutable record of the library, changed by `machine.py` alone."""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from supervisors.errors import Shutdown, StartFailed
from supervisors.spec import BRUTAL, ChildSpec, Kind


class Phase(Enum):
    IDLE = "idle"  # Not running, and nothing will start it by itself.
    WAITING = "waiting"  # To be started: for its turn, or for the end of its back-off.
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"  # Cancelled, not ended yet.
    LOST = "lost"  # Outlived its cancellation; nothing but the end of the process ends it.


class Fate(Enum):
    """What becomes of a child that has been told to go down."""

    REVIVE = "revive"  # Stopped for another's sake: started again in its turn.
    REST = "rest"  # Stopped by hand or with its supervisor: kept, not run.
    DROP = "drop"  # Forgotten.


class Life(Protocol):
    """What the machine may know of a running task."""

    @property
    def last_beat(self) -> float: ...


class Answer(Protocol):
    """Where a caller of the administration waits for the outcome."""

    def give(self, value: object) -> None: ...

    def refuse(self, error: Exception) -> None: ...


UNKILLABLE_AFTER_S = 5.0  # What a cancelled child is granted beyond its shutdown time.
BEATS_MISSED_MAX = 3


@dataclass(slots=True, eq=False)
class Child:
    spec: ChildSpec
    since: float  # When it entered its phase.
    phase: Phase = Phase.WAITING
    due: float = -math.inf  # WAITING: no start before this time.
    deadline: float = math.inf  # When the supervisor must look at it again.
    life: Life | None = None
    ready_at: float | None = None  # When it called started() in this life.
    born: bool = False  # In some life it has; a later failure to start is a failed restart.
    fate: Fate | None = None
    blame: Exception | None = None  # Why it was cancelled, where its end shall count as a failure.
    by_hand: Answer | None = None  # Who waits for it to start.
    escalated: bool = False  # Its failure was the one too many.
    restarts: int = 0
    restarts_in_a_row: int = 0  # Without running for the stable time in between.
    last_error: str | None = None  # The text alone: an exception would keep the arguments alive.
    awaiting_stop: list[Answer] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def stopped(self) -> bool:
        """At rest because somebody asked for it, not because it ended or chose not to run."""
        return self.phase is Phase.IDLE and self.fate is Fate.REST

    @property
    def alive(self) -> bool:
        return self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING)

    @property
    def going_down(self) -> bool:
        return self.fate is not None and self.alive

    def enter(self, phase: Phase, now: float) -> None:
        self.phase, self.since, self.deadline = phase, now, math.inf

    def stop_limit_s(self, cap_s: float) -> float:
        """How long after its cancellation it counts as unkillable."""
        granted_s = 0.0 if self.spec.shutdown_s is BRUTAL else self.spec.shutdown_s
        assert isinstance(granted_s, int | float)
        if self.spec.kind is Kind.WORKER:  # A supervisor needs what its own children need.
            granted_s = min(granted_s, cap_s)
        return granted_s + UNKILLABLE_AFTER_S

    def answer_by_hand(self, outcome: object = None, error: Exception | None = None) -> None:
        answer, self.by_hand = self.by_hand, None
        if answer is not None:
            answer.give(outcome) if error is None else answer.refuse(error)

    def answer_stopped(self) -> None:
        self.answer_by_hand(error=StartFailed(self.id, Shutdown("stopped before it was ready")))
        while self.awaiting_stop:
            self.awaiting_stop.pop().give(None)
