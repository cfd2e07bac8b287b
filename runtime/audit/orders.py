"""The book of orders: each order's newest state, and everything illegal on the way there (I5)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from actors.order_state import TERMINAL, OrderState
from messages.record import Change
from runtime.audit.automaton import Stand, find_changes, find_faults, follow
from runtime.audit.report import Finding
from runtime.log import Entry
from runtime.recall import Address

CLOCK_MS = 5_000  # What the clock of an owner may be ahead of the broker's that it follows.
DEADLINE_PASSED = "DeadlinePassed"

_decode = msgspec.msgpack.Decoder(OrderState).decode


@dataclass(slots=True)
class Order:
    """One order as the log has it. Times are the log's, in milliseconds; `ended_ms` is 0 while it is open."""

    state: OrderState
    stand: Stand
    shard: int
    seq: int
    traceparent: str
    seen_ms: int
    ended_ms: int = 0

    @property
    def is_terminal(self) -> bool:
        return self.state.status in TERMINAL

    @property
    def opened_ms(self) -> int:
        return self.state.history[0].at_ms if self.state.history else self.seen_ms


class Orders:
    """Takes the records of the order shards."""

    def __init__(self) -> None:
        self.by_id: dict[str, Order] = {}
        self.findings: list[Finding] = []
        self.misdated: list[Finding] = []
        """What happened later than it was stored, or too early: no fault where the broker's own clock has jumped."""
        self.states = 0

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[tuple[str, Order]]:
        return iter(self.by_id.items())

    def get(self, order_id: str) -> Order | None:
        return self.by_id.get(order_id)

    def take(self, address: Address, entry: Entry, states: Sequence[Change]) -> None:
        for change in states:
            if change.state is None:
                self._note(
                    change.key, ["it was forgotten; orders are archived, never forgotten"], entry
                )
                continue
            try:
                state = _decode(change.state)
            except msgspec.MsgspecError as error:
                self._note(change.key, [f"its state cannot be read: {error}"], entry)
                continue
            self.states += 1
            self._advance(change, state, address, entry)

    def _advance(self, change: Change, state: OrderState, address: Address, entry: Entry) -> None:
        known = self.by_id.get(change.key)
        self._check_dates(state, known.state if known is not None else None, entry)
        if known is None:
            stand, illegal = follow(Stand.NOWHERE, state.history)
            known = Order(state, stand, address.shard, entry.seq, "", entry.time_ms)
            self.by_id[change.key] = known
            if state.order_id != change.key:
                self._note(change.key, [f"its state is that of order {state.order_id}"], entry)
        else:
            if known.state.remains is not None:
                self._note(change.key, ["it was finished, and has a new state since"], entry)
            self._note(change.key, find_changes(known.state, state), entry)
            stand, illegal = follow(known.stand, state.history[len(known.state.history) :])
        if illegal:
            self._note(change.key, [illegal], entry)
        self._note(change.key, find_faults(stand, state), entry)
        known.state, known.stand, known.seq = state, stand, entry.seq
        known.traceparent = change.traceparent
        if not known.ended_ms and state.status in TERMINAL:
            known.ended_ms = entry.time_ms

    def _check_dates(self, state: OrderState, before: OrderState | None, entry: Entry) -> None:
        """Deadlines go by the broker's clock: nothing is dated ahead of it, and none passes before its time."""
        latest_ms = entry.time_ms + CLOCK_MS
        for line in state.history[len(before.history) if before is not None else 0 :]:
            if line.at_ms > latest_ms:
                ahead_s = (line.at_ms - entry.time_ms) / 1000
                seen = f"{line.event} is dated {ahead_s:.0f} s later than it was stored"
            elif (
                before is not None
                and line.event == DEADLINE_PASSED
                and latest_ms < before.deadline_ms
            ):
                early_s = (before.deadline_ms - entry.time_ms) / 1000
                seen = f"its deadline passed {early_s:.0f} s before its time"
            else:
                continue
            self.misdated.append(Finding("I5", state.order_id, seen, entry.seq))

    def _note(self, order_id: str, faults: Sequence[str], entry: Entry) -> None:
        if faults:
            self.findings += [Finding("I5", order_id, fault, entry.seq) for fault in faults]
