"""Orders: none lost (I1), every life a legal one (I5), every one decided in time (I11)."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from actors.order_state import TERMINAL
from runtime.audit.check import judged, unchecked
from runtime.audit.evidence import OVERDUE_GRACE_MS, Evidence
from runtime.audit.journal import Attempt, Told
from runtime.audit.orders import Order
from runtime.audit.report import Finding, Result

TAIL = 5  # The last requests, all of which must be answered once everything is healed.


def check_none_lost(evidence: Evidence) -> Result:
    """I1: every order that was accepted, or stands in the log, has exactly one terminal state.

    While the system runs, orders on their way are listed and no failure.
    """
    rule = "every accepted order reaches exactly one terminal state"
    orders = evidence.history.orders
    lost = find_lost(evidence)
    findings = [
        Finding("I1", order_id, f"accepted, and not in the log ({where})")
        for order_id, where in lost.items()
    ]
    if evidence.is_quiescent:
        findings += [Finding("I1", key, f"still {one.stand}") for key, one in evidence.open.items()]
        if not evidence.is_outage_known:
            parked = evidence.parked.items()
            findings += [Finding("I1", key, f"still {one.stand}") for key, one in parked]
        findings += list(_find_left_lying(evidence))
    findings += list(_find_ended_twice(evidence))
    checked = len(orders.by_id.keys() | evidence.accepted.keys())
    return judged("I1", rule, checked, findings, list(_undecided_notes(evidence)))


def find_lost(evidence: Evidence) -> dict[str, str]:
    """Orders that were accepted and are not in the log, and where each stands among its worker's others.

    Lost at the beginning (prefix), at the end (postfix) or in between (middle): each points to another kind of bug.
    """
    by_worker: dict[int, list[tuple[str, bool]]] = defaultdict(list)
    for order_id, attempt in evidence.accepted.items():
        is_there = evidence.history.orders.get(order_id) is not None
        by_worker[attempt.worker].append((order_id, is_there))
    lost: dict[str, str] = {}
    for worker, answers in by_worker.items():
        there = [n for n, (_, is_there) in enumerate(answers) if is_there]
        for n, (order_id, is_there) in enumerate(answers):
            if not is_there:
                lost[order_id] = f"worker {worker}, {_part(n, there)}"
    return lost


def _part(n: int, there: Sequence[int]) -> str:
    if not there or n < there[0]:
        return "prefix"
    return "postfix" if n > there[-1] else "middle"


def _find_left_lying(evidence: Evidence) -> Iterator[Finding]:
    """What came by the open way becomes an order, or a letter."""
    causes, orders = evidence.history.causes, evidence.history.orders
    for order_id in causes.intake - orders.by_id.keys() - causes.buried_orders:
        yield Finding("I1", order_id, "it came by the open way, and nobody took it up")


def _find_ended_twice(evidence: Evidence) -> Iterator[Finding]:
    for key, one in evidence.history.orders:
        ends = [line.status for line in one.state.history if line.status in TERMINAL]
        if len(ends) > 1:
            yield Finding("I1", key, f"it ended more than once: {', '.join(ends)}")


def _undecided_notes(evidence: Evidence) -> Iterator[str]:
    for stand, count in Counter(one.stand for one in evidence.parked.values()).items():
        yield f"{count} orders are {stand}"
    if evidence.open and not evidence.is_quiescent:
        yield f"{len(evidence.open)} orders are on their way"


def check_lives(evidence: Evidence) -> Result:
    """I5: every order's life is legal, and every journal is written by one owner after another."""
    history = evidence.history
    damaged = [one for one in history.unreadable if one.seq not in history.causes.buried]
    findings = [*damaged, *history.orders.findings, *history.owners.findings]
    if evidence.is_clock_steady:
        findings += history.orders.misdated
    rule = "every order's history is legal, every journal has one owner after another"
    checked = history.orders.states + history.records
    notes = [f"{history.records} records, {history.owners.take_overs} take-overs"]
    if aside := len(history.unreadable) - len(damaged):
        notes.append(f"{aside} unreadable records were set aside as letters")
    if not history.is_whole:
        notes.append(f"the log begins at {history.first_seq}: what was older has expired")
    return judged("I5", rule, checked, findings, notes)


def check_liveness(evidence: Evidence) -> Result:
    """I11: once the last fault is healed every order is decided within a minute, and requests are answered.

    While the system runs, an order is late only when its own deadline has passed and nothing came of it.
    """
    limit_s = evidence.terminal_within_s
    rule = f"decided within {limit_s:g} s of its placing, or of the last healing"
    took = {key: _took_s(one, evidence.healed_ms) for key, one in evidence.history.orders}
    ended = sorted(seconds for seconds in took.values() if seconds is not None)
    if not ended and not evidence.history.orders:
        return unchecked("I11", rule, "orders")
    findings = [
        Finding("I11", key, f"decided after {seconds:.1f} s")
        for key, seconds in took.items()
        if seconds is not None and seconds > limit_s
    ]
    findings += list(_find_overdue(evidence))
    findings += list(_find_unanswered(evidence))
    notes = []
    if ended:
        notes.append(f"p50 {percentile(ended, 50):.3f} s, p99 {percentile(ended, 99):.3f} s")
    return judged("I11", rule, len(took), findings, notes)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The value that `percent` of them do not exceed."""
    return ascending[math.ceil(len(ascending) * percent / 100) - 1]


def _took_s(order: Order, healed_ms: int) -> float | None:
    """From the placing, or from the last healing where that was later; None while it is open."""
    if not order.ended_ms:
        return None
    return max(0, order.ended_ms - max(order.opened_ms, healed_ms)) / 1000


def _find_overdue(evidence: Evidence) -> Iterator[Finding]:
    for key, one in evidence.open.items():
        due_ms = one.state.due_ms
        if due_ms is not None and due_ms + OVERDUE_GRACE_MS < evidence.history.last_ms:
            late_s = (evidence.history.last_ms - due_ms) / 1000
            yield Finding("I11", key, f"its deadline passed {late_s:.0f} s ago; it is {one.stand}")


def _find_unanswered(evidence: Evidence) -> Iterator[Finding]:
    """The last requests after the healing: the system must not merely have stopped to misbehave."""
    after: list[Attempt] = [one for one in evidence.journal if one.at_ms >= evidence.healed_ms]
    last = sorted(after, key=lambda one: one.at_ms)[-TAIL:]
    if not evidence.is_quiescent or len(last) < TAIL:
        return
    for attempt in last:
        if attempt.outcome is Told.UNKNOWN:
            subject = attempt.about or attempt.key
            yield Finding(
                "I11", subject, f"{attempt.op} was not answered ({attempt.code or 'nothing'})"
            )
