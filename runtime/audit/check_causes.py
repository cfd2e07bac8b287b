"""Nothing unexpected: every fact has its cause, every order its request, every movement of money its fact (I9)."""

from collections.abc import Iterable, Iterator

from runtime.audit.check import judged
from runtime.audit.evidence import Evidence
from runtime.audit.journal import Op
from runtime.audit.report import Finding, Result

ASKS_AND_DEADLINES = frozenset({"OrderCreated", "CancelAsked", "RetryAsked", "DeadlinePassed"})
"""Lines of an order's history that no fact in the log stands for."""


def check_causes(evidence: Evidence) -> Result:
    """I9: every fact's cause stands before it in the log, and is one that its actor answers so; nothing comes unasked.

    Requests are compared where the journal is complete, money where there is a ledger.
    """
    rule = "every fact, order and charge traces to a request or an actor's rule"
    causes = evidence.history.causes
    findings = [*causes.findings, *_find_unheard(evidence)]
    notes = [f"{causes.facts} facts"]
    if causes.expired:
        notes.append(f"the causes of {causes.expired} have expired")
    if evidence.journal and evidence.is_complete:
        findings += list(_find_unasked(evidence))
    else:
        notes.append("requests not compared: that needs a journal said to be complete")
    if evidence.ledger is None:
        notes.append("money not compared: that needs the ledger")
    else:
        findings += list(_find_unbooked(evidence))
    return judged("I9", rule, causes.facts + len(evidence.history.orders), findings, notes)


def _find_unheard(evidence: Evidence) -> Iterator[Finding]:
    """What an order's history says it heard must have been said about it."""
    if not evidence.history.is_whole:
        return
    causes = evidence.history.causes
    for key, one in evidence.history.orders:
        for line in one.state.history:
            if line.event in ASKS_AND_DEADLINES or causes.was_said(key, line.event):
                continue
            yield Finding("I9", key, f"it heard {line.event}, which nobody said", one.seq)


def _find_unasked(evidence: Evidence) -> Iterator[Finding]:
    placed = {one.about for one in evidence.journal if one.op is Op.PLACE}
    cancelled = {one.order_id for one in evidence.journal if one.op is Op.CANCEL}
    came = placed | evidence.history.causes.intake
    for key, one in evidence.history.orders:
        if key not in came:
            yield Finding("I9", key, "nobody placed it", one.seq)
        if key not in cancelled and any(h.event == "CancelAsked" for h in one.state.history):
            yield Finding("I9", key, "nobody asked for its cancel", one.seq)


def _find_unbooked(evidence: Evidence) -> Iterator[Finding]:
    """Each PaymentTaken has a capture and each PaymentRefunded a refund; and, at rest, the other way round."""
    causes, ledger = evidence.history.causes, evidence.ledger or ()
    captures = {line.id: line.reference for line in ledger if line.kind == "capture"}
    refunds = {line.id: line.reference for line in ledger if line.kind == "refund"}
    refunded = {line.charge_id for line in ledger if line.kind == "refund"}
    yield from _find_missing(causes.taken, captures, "it heard of charge {}, which was never made")
    yield from _find_missing(causes.refunded, refunds, "it heard of refund {}, never made")
    orders, is_whole = evidence.history.orders, evidence.history.is_whole
    for reference in dict.fromkeys(line.reference for line in ledger):
        if is_whole and evidence.is_quiescent and orders.get(reference) is None:
            yield Finding("I9", reference, "money moved, and nobody ordered")
    if not evidence.is_quiescent or not is_whole:
        return
    settled = {charge: ref for charge, ref in captures.items() if charge not in refunded}
    yield from _find_unsaid(evidence, settled, causes.taken.keys(), "charge")
    yield from _find_unsaid(evidence, refunds, causes.refunded.keys(), "refund")


def _find_missing(said: dict[str, str], booked: dict[str, str], seen: str) -> Iterator[Finding]:
    for movement, order_id in said.items():
        if booked.get(movement) != order_id:
            yield Finding("I9", order_id, seen.format(movement))


def _find_unsaid(
    evidence: Evidence, booked: dict[str, str], said: Iterable[str], what: str
) -> Iterator[Finding]:
    known = set(said)
    for movement, reference in booked.items():
        order = evidence.history.orders.get(reference)
        if movement not in known and order is not None and order.is_terminal:
            yield Finding("I9", reference, f"{what} {movement} was made, and it never heard of it")
