"""What one can see of a running instance: its supervision tree with what each shard is busy with, and what is amiss.

Readiness comes from here: every required part has started, runs, and gets on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from supervisors.tree import Node, State

STALLED_AFTER_S = 3.0  # Deciding takes milliseconds, and so does an append that a broker answers.
NOT_REQUIRED = frozenset({"admin"})  # Orders are taken without it.


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a shard, the tail or the writer of views is busy with at one moment; `progress_s` is on trio's clock."""

    waiting: int
    calls: int
    is_idle: bool
    progress_s: float  # When it last took something up, or committed it.
    seq: int = 0  # Of the newest record that it has appended, or read.

    def stalled_s(self, now_s: float) -> float | None:
        """For how long it has not got on, if that is too long."""
        still_s = now_s - self.progress_s
        return still_s if not self.is_idle and still_s > STALLED_AFTER_S else None


Busy = Mapping[str, Vitals]  # By the id of the shard's child; only those that run.


def unready(root: Node, busy: Busy, now_s: float) -> tuple[str, ...]:
    """Why the instance is not ready, child by child, in words that anyone may read."""
    found = tuple(_unready_below(root, busy, now_s))
    if not found and root.state is not State.RUNNING:
        return (f"{root.path}: {root.state.value}",)
    return found


def _unready_below(node: Node, busy: Busy, now_s: float) -> Iterator[str]:
    for child in node.children:
        if child.id in NOT_REQUIRED:
            continue
        if child.children:
            yield from _unready_below(child, busy, now_s)
        elif (reason := _why_unready(child, busy, now_s)) is not None:
            yield f"{child.path}: {reason}"


def _why_unready(node: Node, busy: Busy, now_s: float) -> str | None:
    vitals = busy.get(node.id)
    match node.state:
        case State.WAITING:
            return None  # For the sibling that starts before it, which is named itself.
        case State.RUNNING:
            stalled_s = vitals.stalled_s(now_s) if vitals is not None else None
            return None if stalled_s is None else f"no progress for {stalled_s:.1f} s"
        case State.RESTARTING if node.until is not None:
            return f"restarting in {node.until - now_s:.1f} s{_after(node)}"
        case _:
            return f"{node.state.value}{_after(node)}"


def _after(node: Node) -> str:
    """The kind of its last error. Not the text, which is for those who may see the tree."""
    kind = (node.last_error or "").partition(":")[0].rpartition(" of ")[2]
    return f" after {kind}" if kind else ""


def describe(node: Node, busy: Busy, now_s: float) -> dict[str, Any]:
    """A node and all below it, ready for JSON; times are seconds from now, or until now."""
    described: dict[str, Any] = {
        "id": node.id,
        "path": node.path,
        "kind": node.kind.value,
        "state": node.state.value,
        "since_s": round(now_s - node.since, 3),
        "restarts": node.restarts,
        "restarts_in_window": node.restarts_in_window,
        "intensity": node.intensity,
    }
    if node.until is not None:
        described["backing_off_s"] = round(node.until - now_s, 3)
    if node.last_error:
        described["last_error"] = node.last_error
    if (vitals := busy.get(node.id)) is not None:
        described |= _describe_vitals(vitals, now_s)
    if node.strategy is not None:
        described["strategy"] = node.strategy.value
    if node.children:
        described["children_restarts_in_window"] = sum(
            child.restarts_in_window for child in node.children
        )
        described["children_intensity"] = node.children[0].intensity
        described["children"] = [describe(child, busy, now_s) for child in node.children]
    return described


def _describe_vitals(vitals: Vitals, now_s: float) -> dict[str, Any]:
    return {
        "mailbox_lag": vitals.waiting,
        "calls_in_flight": vitals.calls,
        "last_progress_s": round(now_s - vitals.progress_s, 3),
        "stalled": vitals.stalled_s(now_s) is not None,
    }
