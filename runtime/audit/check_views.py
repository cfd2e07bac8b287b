"""The read model: what the log alone gives when it is read anew is what the system shows and keeps (I6)."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from actors.order_state import view
from runtime.audit.check import judged, unchecked
from runtime.audit.evidence import Evidence
from runtime.audit.orders import Order
from runtime.audit.report import Finding, Result
from runtime.trace_context import trace_id_of

_encode = msgspec.json.Encoder().encode


class _Shown(msgspec.Struct):
    """As much of a view as tells which version of the order it is."""

    version: int
    history: list[dict[str, Any]]


_decode = msgspec.json.Decoder(_Shown).decode


def check_views(evidence: Evidence) -> Result:
    """I6: every stored view is, byte for byte, the last state in the log; every snapshot what its journal says by then.

    While the system runs a view may be ahead or behind: then it must be a version of the same order.
    """
    rule = "views and snapshots are what the log alone gives, byte for byte"
    saved = evidence.history.saved
    notes = [f"{saved.compared} snapshots compared"]
    if saved.unseen:
        notes.append(f"taken after records that are not in the log: {_listed(saved.unseen)}")
    if evidence.views is None:
        if saved.findings:
            return judged("I6", rule, saved.compared, saved.findings, notes)
        return unchecked("I6", rule, "the view store", notes)
    findings = [*saved.findings, *_find_in_views(evidence, evidence.views)]
    notes.append(f"{len(evidence.views)} views compared")
    return judged("I6", rule, saved.compared + len(evidence.views), findings, notes)


def render(order: Order) -> bytes:
    """What the public should be shown of an order."""
    return _encode({**view(order.state), "trace_id": trace_id_of(order.traceparent)})


def _find_in_views(evidence: Evidence, views: Mapping[str, bytes]) -> Iterator[Finding]:
    orders = evidence.history.orders
    for key, one in orders:
        shown, due = views.get(key), render(one)
        if shown == due:
            continue
        if evidence.is_quiescent:
            seen = "it has no view" if shown is None else _difference(shown, due)
            yield Finding("I6", key, seen, one.seq)
        elif shown is not None and not _is_version(shown, due):
            yield Finding("I6", key, f"no version of it: {_difference(shown, due)}", one.seq)
    if evidence.history.is_whole and evidence.is_quiescent:
        for key in views.keys() - orders.by_id.keys():
            yield Finding("I6", key, "it has a view, and is not in the log")


def _is_version(shown: bytes, due: bytes) -> bool:
    """Whether a view is of an earlier or a later version of what the log had when it was read."""
    try:
        one, other = _decode(shown), _decode(due)
    except msgspec.MsgspecError:
        return False
    common = min(one.version, other.version)
    return one.history[:common] == other.history[:common]


def _difference(shown: bytes, due: bytes) -> str:
    """The fields in which a view is not what it should be."""
    try:
        one, other = msgspec.json.decode(shown), msgspec.json.decode(due)
        names = [name for name in other if one.get(name) != other[name]]
    except (msgspec.MsgspecError, AttributeError):
        return "its view is no JSON object"
    said = [f"{name} {one.get(name)!r} instead of {other[name]!r}" for name in names[:2]]
    return "; ".join(said)[:300] or "the same values in other bytes"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5])
