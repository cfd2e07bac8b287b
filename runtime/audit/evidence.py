"""The evidence of one audit: the log's history, and whatever else is there to hold it against."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from runtime.audit.automaton import Stand
from runtime.audit.history import History
from runtime.audit.journal import Attempt, Op, Told
from runtime.audit.marks import Mark
from runtime.audit.orders import Order
from runtime.audit.samples import Sample
from runtime.audit.spans import Span
from runtime.simulator_ledger import Line

TERMINAL_WITHIN_S = 60.0
OVERDUE_GRACE_MS = 60_000


@dataclass(frozen=True)
class Evidence:
    """What an audit is given. None means that there is none of a kind: what needs it is not checked.

    `is_quiescent`: nothing is under way any more, so every order must be decided. `is_complete`: the journal has every
    request that was ever made. `is_outage_known`: a provider that stayed away explains orders that need attention.
    `is_clock_steady`: the broker's clock has not been set.
    """

    history: History
    journal: Sequence[Attempt] = ()
    ledger: Sequence[Line] | None = None
    views: Mapping[str, bytes] | None = None
    marks: Sequence[Mark] = ()
    spans: Sequence[Span] | None = None
    logs: Mapping[str, Iterable[str]] | None = None
    samples: Sequence[Sample] = ()
    is_quiescent: bool = True
    is_complete: bool = False
    is_outage_known: bool = False
    is_clock_steady: bool = True
    terminal_within_s: float = TERMINAL_WITHIN_S
    planned: Mapping[str, int] = field(default_factory=dict)
    sometimes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def accepted(self) -> Mapping[str, Attempt]:
        """The first acceptance of each order that a client was told is placed."""
        first: dict[str, Attempt] = {}
        for attempt in sorted(self.journal, key=lambda one: one.ended_ms):
            if attempt.op is Op.PLACE and attempt.outcome is Told.ACCEPTED:
                first.setdefault(attempt.about, attempt)
        return first

    @cached_property
    def open(self) -> Mapping[str, Order]:
        """Orders on their way, those that need attention apart."""
        return {key: one for key, one in self._undecided if one.stand not in PARKED}

    @cached_property
    def parked(self) -> Mapping[str, Order]:
        """Orders that need attention."""
        return {key: one for key, one in self._undecided if one.stand in PARKED}

    @cached_property
    def _undecided(self) -> Sequence[tuple[str, Order]]:
        return [(key, one) for key, one in self.history.orders if not one.is_terminal]

    @property
    def healed_ms(self) -> int:
        """When the last fault was over; 0 where there was none."""
        return max((mark.healed_ms or mark.at_ms for mark in self.marks), default=0)


PARKED = frozenset({Stand.PARKED, Stand.PARKED_WITHDRAWN})
