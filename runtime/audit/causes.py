"""The book of causes: every fact in the log, who said it, about what, and because of which other (I9)."""

from collections.abc import Sequence

from messages.generated.orders.v1 import PaymentRefunded, PaymentTaken
from messages.record import Envelope, Letter
from runtime.audit.report import Finding
from runtime.log import Entry
from runtime.recall import Address

OUTSIDE = ""  # An ask, the answer to a call, a deadline: what no fact in the log has caused.
ANY = "*"  # Something that came in by a way that we do not read, such as a letter sent again.


def _rule(*causes: str) -> frozenset[str]:
    return frozenset({*causes, ANY})


RULES: dict[str, dict[str, frozenset[str]]] = {
    "order": {
        "OrderOpened": _rule("OrderCreated", OUTSIDE),
        "OrderReserved": _rule("StockReserved"),
        "OrderConfirmed": _rule("PaymentTaken", "ReservationExpired"),
        "OrderRejected": _rule(
            "StockRefused", "PaymentRefused", "StockReserved", "ReservationExpired"
        ),
        "OrderCancelled": _rule(
            OUTSIDE, "PaymentRefused", "PaymentTaken", "StockReserved", "ReservationExpired"
        ),
        "PaymentRetried": _rule(OUTSIDE),
    },
    "inventory": {
        "StockReserved": _rule("OrderOpened"),
        "StockRefused": _rule("OrderOpened"),
        "ReservationExpired": _rule(OUTSIDE),
    },
    "payment": {
        "PaymentTaken": _rule(OUTSIDE),
        "PaymentRefused": _rule(OUTSIDE),
        "PaymentUnknown": _rule(OUTSIDE),
        "PaymentRefunded": _rule(OUTSIDE),
        "PaymentVoided": _rule(OUTSIDE, "OrderCancelled"),
    },
}
"""Who says what, and why: a fact that is not here, or has another cause, was said against the rules."""

_BITS = {kind: 1 << n for n, kind in enumerate(kind for said in RULES.values() for kind in said)}


class Causes:
    """Takes every journal's facts, and what came in by other ways."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.facts = self.expired = 0
        self.intake: set[str] = set()
        """Orders that came by the open way, readable or not."""
        self.taken: dict[str, str] = {}
        """The order of each charge that a PaymentTaken names."""
        self.refunded: dict[str, str] = {}
        """The order of each refund that a PaymentRefunded names."""
        self.buried: set[int] = set()
        """Messages of the log that were set aside, wholly or in part."""
        self.buried_orders: set[str] = set()
        self._first_seq = 0
        self._kinds: dict[int, tuple[str, ...]] = {}
        self._about: dict[int, tuple[str, ...]] = {}
        self._said: dict[str, int] = {}

    def was_said(self, order_id: str, kind: str) -> bool:
        """Whether the log has such a fact about this order."""
        return bool(self._said.get(order_id, 0) & _BITS.get(kind, 0))

    def orders(self) -> set[str]:
        """Every order that any fact is about."""
        return set(self._said)

    def take_intake(self, entry: Entry, order_id: str) -> None:
        self._first_seq = self._first_seq or entry.seq
        self.intake.add(order_id)
        self._remember(entry.seq, ("OrderCreated",), (order_id,))

    def take_foreign(self, entry: Entry) -> None:
        self._remember(entry.seq, (ANY,), (ANY,))

    def take_record(
        self, address: Address, entry: Entry, facts: Sequence[Envelope | Letter]
    ) -> None:
        self._first_seq = self._first_seq or entry.seq
        rules = RULES.get(address.actor)
        kinds: list[str] = []
        about: list[str] = []
        for sent in facts:
            if isinstance(sent, Letter):
                kinds.append(sent.type)
                about.append(sent.correlation_id)
                continue
            kind, order_id = type(sent.fact).__name__, sent.correlation_id
            kinds.append(kind)
            about.append(order_id)
            self._said[order_id] = self._said.get(order_id, 0) | _BITS.get(kind, 0)
            if isinstance(sent.fact, PaymentTaken):
                self.taken[sent.fact.charge_id] = order_id
            elif isinstance(sent.fact, PaymentRefunded):
                self.refunded[sent.fact.refund_id] = order_id
            if rules is not None and (fault := self._find_fault(rules, kind, sent, entry.seq)):
                self.findings.append(Finding("I9", order_id, fault, entry.seq))
        self.facts += len(facts)
        self._remember(entry.seq, tuple(kinds), tuple(about))

    def take_letters(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            self.buried.add(letter.seq)
            self.buried_orders.add(letter.correlation_id)

    def _remember(self, seq: int, kinds: tuple[str, ...], about: tuple[str, ...]) -> None:
        if kinds:
            self._kinds[seq], self._about[seq] = kinds, about

    def _find_fault(
        self, rules: dict[str, frozenset[str]], kind: str, sent: Envelope, seq: int
    ) -> str:
        allowed = rules.get(kind)
        if allowed is None:
            return f"{kind} is nothing that this actor says"
        if not sent.cause_seq:
            return "" if OUTSIDE in allowed else f"{kind} was said without a cause"
        place = f"{sent.cause_seq}.{sent.cause_index}"
        kinds = self._kinds.get(sent.cause_seq, ())
        if not sent.cause_index < len(kinds):
            if sent.cause_seq < self._first_seq:
                self.expired += 1
                return ""
            late = "stands later" if sent.cause_seq >= seq else "is not in the log"
            return f"{kind} was caused by {place}, which {late}"
        cause, about = kinds[sent.cause_index], self._about[sent.cause_seq][sent.cause_index]
        if cause not in allowed:
            return f"{kind} was caused by {place}, a {cause}, which nobody answers so"
        if about not in (sent.correlation_id, ANY):
            return f"{kind} was caused by {place}, which is about order {about}"
        return ""
