"""Clients: what they read never goes backwards (I7), and the same request is the same order for ever (I8)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from actors.order_state import TERMINAL, OrderStatus
from runtime.audit.check import judged, unchecked
from runtime.audit.evidence import Evidence
from runtime.audit.journal import Attempt, Op, Told
from runtime.audit.report import Finding, Result

NEEDS_JOURNAL = "the clients' journal (--journal FILE)"
NOT_FOUND = 404


def check_reads(evidence: Evidence) -> Result:
    """I7: reads of one order by one worker never go backwards, show what the log has, and find what was accepted."""
    rule = "reads never go backwards, and find what was accepted before"
    reads = [one for one in evidence.journal if one.op is Op.READ]
    if not reads:
        return unchecked("I7", rule, f"{NEEDS_JOURNAL} with reads in it")
    findings = [*_find_backwards(reads), *_find_never_so(evidence, reads)]
    findings += list(_find_missed(evidence, reads))
    return judged("I7", rule, len(reads), findings)


def _find_backwards(reads: Iterable[Attempt]) -> Iterator[Finding]:
    sessions: dict[tuple[int, str], list[Attempt]] = defaultdict(list)
    for read in reads:
        if read.outcome is Told.ACCEPTED:
            sessions[read.worker, read.order_id].append(read)
    for (worker, order_id), session in sessions.items():
        session.sort(key=lambda one: one.at_ms)
        for before, after in pairwise(session):
            is_after = after.at_ms >= before.ended_ms
            if is_after and after.version < before.version:
                seen = f"worker {worker} read version {before.version}, then {after.version}"
                yield Finding("I7", order_id, seen)


def _find_never_so(evidence: Evidence, reads: Iterable[Attempt]) -> Iterator[Finding]:
    """A version that was shown must be the one that the log has."""
    for read in reads:
        order = evidence.history.orders.get(read.order_id)
        if read.outcome is not Told.ACCEPTED or not read.version or order is None:
            continue
        lines = order.state.history
        status = lines[read.version - 1].status if read.version <= len(lines) else "no such version"
        if status != read.status:
            seen = f"version {read.version} was read as {read.status}; the log has {status}"
            yield Finding("I7", read.order_id, seen)


def _find_missed(evidence: Evidence, reads: Iterable[Attempt]) -> Iterator[Finding]:
    for read in reads:
        accepted = evidence.accepted.get(read.order_id)
        if accepted and read.code == NOT_FOUND and read.at_ms >= accepted.ended_ms:
            late_ms = read.at_ms - accepted.ended_ms
            yield Finding("I7", read.order_id, f"not found {late_ms:.0f} ms after it was accepted")


def check_answers(evidence: Evidence) -> Result:
    """I8: a tenant's key is one order, with the body that was accepted; other keys are other orders; an end is an end.

    An accepted cancel ends in `cancelled`, and of the terminal states that clients were told of an order all are alike.
    """
    rule = "same tenant and key, same order and answer; other tenant or key, other order"
    if not evidence.journal:
        return unchecked("I8", rule, NEEDS_JOURNAL)
    findings = [*_find_mixed_up(evidence.journal), *_find_contradictions(evidence)]
    findings += list(_find_other_bodies(evidence))
    keys = {(one.tenant, one.key) for one in evidence.journal if one.op is Op.PLACE}
    return judged("I8", rule, len(keys), findings)


def _find_mixed_up(journal: Iterable[Attempt]) -> Iterator[Finding]:
    orders: dict[tuple[str, str], set[str]] = defaultdict(set)
    keys: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in journal:
        if one.op is Op.PLACE and one.order_id:
            orders[one.tenant, one.key].add(one.order_id)
            keys[one.order_id].add((one.tenant, one.key))
    for (tenant, key), order_ids in orders.items():
        if len(order_ids) > 1:
            whose = f"{tenant}: " if tenant else ""
            yield Finding("I8", f"{whose}{key}", f"it got several orders: {sorted(order_ids)}")
    for order_id, pairs in keys.items():
        if len(pairs) > 1:
            yield Finding("I8", order_id, f"several keys got it: {sorted(pairs)[:3]}")


def _find_contradictions(evidence: Evidence) -> Iterator[Finding]:
    ends: dict[str, set[str]] = defaultdict(set)
    cancelled: set[str] = set()
    for one in evidence.journal:
        if one.outcome is not Told.ACCEPTED or not one.about:
            continue
        if one.status in TERMINAL:
            ends[one.about].add(one.status)
        if one.op is Op.CANCEL:
            cancelled.add(one.about)
    for order_id, told in ends.items():
        order = evidence.history.orders.get(order_id)
        told_and_is = told | ({str(order.state.status)} if order is not None else set())
        if len(told_and_is) > 1:
            yield Finding("I8", order_id, f"clients were told {sorted(told)}; it is {told_and_is}")
    for order_id in cancelled:
        order = evidence.history.orders.get(order_id)
        ended = order.state.status if order is not None and order.is_terminal else None
        if ended not in (None, OrderStatus.CANCELLED):
            yield Finding("I8", order_id, f"its cancel was accepted, and it is {ended}")


def _find_other_bodies(evidence: Evidence) -> Iterator[Finding]:
    for one in evidence.journal:
        if one.op is not Op.PLACE or one.outcome is not Told.ACCEPTED or not one.items:
            continue
        order = evidence.history.orders.get(one.about)
        if order is None:
            continue
        stored = [(item.sku, item.quantity, item.unit_price_minor) for item in order.state.items]
        if sorted(stored) != sorted(map(tuple, one.items)):
            yield Finding("I8", one.about, "it holds other lines than were accepted")
        elif one.total_minor and (one.total_minor, one.currency) != (
            order.state.total_minor,
            order.state.currency,
        ):
            yield Finding("I8", one.about, "it costs another amount than was accepted")
