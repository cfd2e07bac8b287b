"""Judge what a run has left behind: the auditor's invariants, and what no fault of the schedule explains."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

from messages.record import RawRecord
from runtime.audit import Finding, History, Mark, Op, Told, audit
from runtime.explore.draw import draw
from runtime.explore.play import QUIET_S, ROUNDS_MAX, Played, play
from runtime.explore.schedule import Kind, Schedule
from runtime.memory import EPOCH_MS
from runtime.recall import JOURNALS, LETTERS

WORLD: Final = "run"
"""The name of what is no invariant of the history: errors that nothing explains, promises not kept in time."""

ENDLESS: Final = "end"
"""The name of a run's having gone on until it was broken off: what else is found may come of that."""

HOPED_FOR: Final = (
    "a fence refused append",
    "an append was stored after its client had given up",
    "an append was refused after its client had given up",
    "a process was superseded by another",
    "a process was killed during a call",
    "a call was made again by another process",
    "a record was delivered twice",
    "a record was delivered twice during a call",
    "a supervisor gave up, and the process with it",
    "an order was confirmed",
    "an order was rejected",
    "an order was cancelled",
    "an order needed attention",
    "a cancel came too late",
    "an order was asked for twice",
    "another body under a known id was refused",
    "a charge was taken whose answer was lost",
    "a refund was given",
    "a letter was buried",
    "a deadline passed",
    "a shard began from a snapshot",
    "a record held more than one step",
)
"""What must happen sometimes, over many runs: a search that never meets one of these says too little."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run, judged. `checked` says how often each invariant was held against something."""

    schedule: Schedule
    findings: tuple[Finding, ...]
    checked: Counter[str]
    fired: Counter[str]
    seen: Counter[str]
    orders: int
    digest: str
    virtual_s: float

    @property
    def holds(self) -> bool:
        return not self.findings


def run_seed(seed: int) -> Outcome:
    """Draw the schedule of a seed, play it, and judge."""
    return run_schedule(draw(seed))


def run_schedule(schedule: Schedule) -> Outcome:
    """Play a schedule, and judge what it has left behind."""
    return judge(play(schedule))


def judge(played: Played) -> Outcome:
    """Hold a run against every invariant."""
    schedule = played.schedule
    conditions = schedule.conditions
    counts = dict(zip(("order", "inventory", "payment"), conditions.shards, strict=True))
    history = History(counts, played.store.snapshots)
    history.add_all(played.store.entries)
    fired = Counter(str(fault.kind) for _, fault in played.fired)
    jumped = Kind.JUMP in fired
    report = audit(
        history,
        journal=played.journal,
        ledger=played.ledger,
        views=played.store.views,
        marks=_marks(played),
        complete=True,
        clock_steady=not jumped,
        # By a clock that jumps, nothing can be timed; that everything ended was seen by ours.
        terminal_within_s=math.inf if jumped else QUIET_S,
    )
    surprises = tuple(Finding(WORLD, str(schedule.seed), seen) for seen in played.surprises)
    return Outcome(
        schedule,
        (*_endless(played), *report.findings, *surprises),
        Counter({result.invariant: result.checked for result in report}),
        fired,
        played.seen + _happened(played, history),
        len(history.orders),
        played.digest(),
        played.took_s,
    )


def _endless(played: Played) -> tuple[Finding, ...]:
    if not played.is_endless:
        return ()
    seen = f"it was broken off after {ROUNDS_MAX} rounds of the scheduler and {played.took_s:g} s of its own time"
    return (Finding(ENDLESS, str(played.schedule.seed), seen),)


def _marks(played: Played) -> list[Mark]:
    healed_ms = EPOCH_MS + round(played.healed_s * 1000)
    return [
        Mark(EPOCH_MS + round(at_s * 1000), "", str(fault), healed_ms)
        for at_s, fault in played.fired
    ]


def _happened(played: Played, history: History) -> Counter[str]:
    """What the history itself shows to have happened."""
    happened: Counter[str] = Counter()
    accepted = Counter(
        one.order_id
        for one in played.journal
        if one.op is Op.PLACE and one.outcome is Told.ACCEPTED
    )
    happened["an order was asked for twice"] = sum(times > 1 for times in accepted.values())
    happened["another body under a known id was refused"] = sum(
        one.code == 422 for one in played.journal if one.op is Op.PLACE
    )
    happened["a cancel came too late"] = sum(one.code == 409 for one in played.journal)
    for _, order in history.orders:
        happened[f"an order was {order.state.status}"] += 1
        happened["a deadline passed"] += any(
            line.event == "DeadlinePassed" for line in order.state.history
        )
    happened["a refund was given"] = sum(line.kind == "refund" for line in played.ledger)
    for entry in played.store.entries:
        happened["a letter was buried"] += entry.subject.startswith(LETTERS)
        if entry.subject.startswith(JOURNALS):
            happened["a record held more than one step"] += len(RawRecord(entry.payload).facts) > 1
    return +happened
