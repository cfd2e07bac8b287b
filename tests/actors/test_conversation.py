"""The three actors talk until nobody has anything to say; then every order is decided, and money and stock add up.

Hypothesis is the scheduler: which shard hears next, what the provider does and which answer is lost, when a customer
changes their mind, when time passes, when a shard is killed. What stays promised is what the log promises: a shard
hears the facts addressed to it in the log's order, once; it loses neither states nor facts, but calls under way.
A fact may be set aside as a dead letter, and be replayed by a person long after the conversation has moved on.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from betterproto import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import ACTORS, Place, Terms
from actors.actor import (
    Actor,
    Call,
    CallAnswered,
    CallOutcome,
    Charge,
    Due,
    Heard,
    Outcome,
    Refund,
    Remains,
    State,
)
from actors.inventory import Reservation, Stock
from actors.order_state import TERMINAL, OrderState, OrderStatus
from messages.generated.orders.v1 import (
    CancelAsked,
    OrderCreated,
    OrderItem,
    RetryAsked,
    StockCounted,
)
from messages.routing import Routes

EXAMPLES = int(os.environ.get("SIMULATIONS", "80"))
TERMS = Terms(reservation_ttl_ms=60_000, payment_deadline_ms=30_000, payment_settle_ms=5_000)
SHARDS = {"order": 2, "inventory": 3, "payment": 2}
STOCK = {"hat": 9, "cup": 7, "pin": 12, "bag": 5, "wig": 0}
PRICES = {"hat": 255, "cup": 100, "pin": 1, "bag": 990, "wig": 5000, "ufo": 7}
LEGAL = {
    OrderStatus.PENDING: {OrderStatus.RESERVED, OrderStatus.REJECTED, OrderStatus.CANCELLED},
    OrderStatus.RESERVED: set(OrderStatus) - {OrderStatus.PENDING},
    OrderStatus.NEEDS_ATTENTION: set(OrderStatus) - {OrderStatus.PENDING},
}


@dataclass
class Provider:
    """A payment provider that keeps its word on idempotency keys, and may work on after nobody listens any more."""

    charges: dict[str, tuple[str, int]] = field(default_factory=dict)  # By key: order, amount.
    refunds: dict[str, tuple[str, int]] = field(default_factory=dict)
    under_way: list[tuple[int, Charge]] = field(default_factory=list)  # When it takes effect.

    def charge(self, call: Charge) -> CallOutcome:
        if call.token == "declined":
            return CallOutcome.DECLINED
        self.charges[call.key] = (call.reference, call.amount_minor)
        return CallOutcome.CAPTURED

    def work(self, now_ms: int) -> None:
        for at_ms, call in self.under_way:
            if at_ms <= now_ms:
                self.charge(call)
        self.under_way = [late for late in self.under_way if late[0] > now_ms]

    def taken(self, reference: str) -> int:
        return sum(amount for order, amount in self.charges.values() if order == reference)

    def net(self, reference: str) -> int:
        given_back = (amount for order, amount in self.refunds.values() if order == reference)
        return self.taken(reference) - sum(given_back)


@dataclass
class Shard:
    actor: Actor
    address: tuple[str, int]
    states: dict[str, State | Remains] = field(default_factory=dict)
    read: int = 0  # Facts of the log.
    calls: dict[str, Call] = field(default_factory=dict)
    answers: list[CallAnswered] = field(default_factory=list)

    def live(self) -> Iterator[tuple[str, State]]:
        return ((key, state) for key, state in self.states.items() if isinstance(state, State))


class Simulation:
    """`trouble` is the share of calls whose answer is lost, `poison` the share of facts that are set aside."""

    def __init__(self, random: Random, trouble: float, poison: float) -> None:
        self.random, self.trouble, self.poison = random, trouble, poison
        self.letters: list[tuple[Shard, Message]] = []
        self.now_ms = 1_000_000
        self.log: list[Message] = []
        self.provider = Provider()
        self.orders: dict[str, OrderCreated] = {}
        self.statuses: dict[str, OrderStatus] = {}
        self.shards = [
            Shard(make(TERMS, Place(shard, SHARDS[name])), (name, shard))
            for name, make in ACTORS.items()
            for shard in range(SHARDS[name])
        ]
        hears = {name: make(TERMS, Place(0, 1)).hears for name, make in ACTORS.items()}
        self.routes = Routes(hears, SHARDS)
        for sku, count in STOCK.items():
            self.ask(StockCounted(sku=sku, on_hand=count))

    # --- what the world does ---

    def ask(self, fact: Message) -> Outcome | None:
        """Somebody asks a shard directly, past the log, as the edge does."""
        (address,) = self.routes.heard_by(fact)
        return self._hear(self._at(address), fact)

    def place(self, order_id: str) -> None:
        choice = PRICES if self.random.random() < 0.1 else ("hat", "cup", "pin", "bag")
        skus = self.random.sample(sorted(choice), self.random.randint(1, 3))
        items = [OrderItem(sku, self.random.randint(1, 3), PRICES[sku]) for sku in skus]
        created = OrderCreated(
            order_id=order_id,
            customer_id="17850",
            items=items,
            currency="GBP",
            total_minor=sum(item.quantity * item.unit_price_minor for item in items),
            payment_token=self.random.choice(["ok", "ok", "declined"]),
        )
        self.orders[order_id] = created
        self.ask(created)

    def step(self) -> bool:
        """Let one thing happen that can happen now; False where there is none."""
        moves = [*self._deliveries(), *self._calls(), *self._answers(), *self._deadlines()]
        if not moves:
            return False
        what, shard, about = self.random.choice(moves)
        match what, about:
            case "deliver", int():
                shard.read = about + 1
                if self.random.random() < self.poison:
                    self.letters.append((shard, self.log[about]))
                else:
                    self._hear(shard, self.log[about])
            case "call", str() as key:
                call = dict(shard.live())[key].call
                assert call is not None
                shard.calls[key] = call
                shard.answers.append(CallAnswered(key, call, *self._perform(call)))
            case "answer", CallAnswered():
                shard.answers.remove(about)
                if shard.calls.get(about.key) == about.call:
                    del shard.calls[about.key]
                self._hear(shard, about)
            case "due", Due():
                self._hear(shard, about)
        return True

    def meddle(self) -> None:
        """A customer, an operator, the clock or a kill."""
        order_id = self.random.choice(sorted(self.orders))
        match self.random.randrange(8):
            case 0:
                self.ask(CancelAsked(order_id=order_id))
            case 1:
                self.ask(self.orders[order_id])
            case 2:
                self.ask(RetryAsked(order_id=order_id))
            case 3:
                self._kill(self.random.choice(self.shards))
            case 4:
                self.pass_time(self.random.choice([100, 1_000, 10_000, 70_000]))
            case 5:
                self._recount(self.random.choice(sorted(STOCK)))
            case _:
                self.pass_time(1)

    def pass_time(self, by_ms: int) -> None:
        self.now_ms += by_ms
        self.provider.work(self.now_ms)

    def run(self) -> None:
        """Until nobody has anything to say, however long they may wait."""
        for _ in range(20_000):
            if self.step():
                continue
            wakes = [state.due_ms for _, state in self._waiting() if state.due_ms is not None]
            if not wakes:
                return
            self.pass_time(max(0, min(wakes) - self.now_ms))
        pytest.fail("they do not come to an end")

    def heal(self) -> None:
        """The provider answers again, dead letters are replayed, and a person decides what was parked."""
        self.trouble = self.poison = 0.0
        self.random.shuffle(self.letters)
        for shard, fact in self.letters:
            self._hear(shard, fact)
            if self.random.random() < 0.5:
                self.run()
        self.run()
        for order_id in self.parked():
            asked = self.random.choice([CancelAsked, RetryAsked])
            self.ask(asked(order_id=order_id))
            self.run()
        for order_id in self.parked():  # Those that were withdrawn before they were parked.
            self.ask(RetryAsked(order_id=order_id))
            self.run()

    def parked(self) -> list[str]:
        parked = OrderStatus.NEEDS_ATTENTION
        return [order_id for order_id, status in self.statuses.items() if status is parked]

    # --- what can happen now ---

    def _deliveries(self) -> Iterator[tuple[str, Shard, object]]:
        for shard in self.shards:
            for at in range(shard.read, len(self.log)):
                if shard.address in self.routes.heard_by(self.log[at]):
                    yield "deliver", shard, at
                    break

    def _calls(self) -> Iterator[tuple[str, Shard, object]]:
        for shard in self.shards:
            for key, state in shard.live():
                call = state.call
                if call is not None and shard.calls.get(key) != call:
                    yield "call", shard, key

    def _answers(self) -> Iterator[tuple[str, Shard, object]]:
        return (("answer", shard, one) for shard in self.shards for one in shard.answers)

    def _deadlines(self) -> Iterator[tuple[str, Shard, object]]:
        for shard in self.shards:
            for key, state in shard.live():
                if state.due_ms is not None and state.due_ms <= self.now_ms:
                    yield "due", shard, Due(key)

    def _waiting(self) -> Iterator[tuple[str, State]]:
        """States with a deadline that leads somewhere: what is held for a parked order asks again for ever."""
        for shard in self.shards:
            for key, state in shard.live():
                parked = OrderStatus.NEEDS_ATTENTION
                if not (isinstance(state, Reservation) and self.statuses[state.order_id] is parked):
                    yield key, state

    # --- how it happens ---

    def _at(self, address: tuple[str, int]) -> Shard:
        return next(shard for shard in self.shards if shard.address == address)

    def _hear(self, shard: Shard, heard: Heard) -> Outcome | None:
        step = shard.actor.react(shard.states, heard, self.now_ms)
        for key, state in step.states.items():
            if isinstance(state, OrderState):
                self._note(state)
            if state is None:
                del shard.states[key]
            else:
                shard.states[key] = state.remains or state
        self.log.extend(step.facts)
        self.check_stock()
        return step.answer.outcome if step.answer else None

    def _note(self, state: OrderState) -> None:
        before = self.statuses.get(state.order_id)
        assert before is None or state.status is before or state.status in LEGAL[before]
        self.statuses[state.order_id] = state.status

    def _perform(self, call: Call) -> tuple[CallOutcome, str]:
        """What becomes of a call, and whether anybody hears of it."""
        lost = self.random.random() < self.trouble
        match call:
            case Charge() if lost and self.random.random() < 0.5:
                within_ms = self.random.randrange(TERMS.payment_settle_ms)
                self.provider.under_way.append((self.now_ms + within_ms, call))
                return CallOutcome.UNKNOWN, "timed out"
            case Charge() if lost and self.random.random() < 0.5:
                return CallOutcome.UNKNOWN, "no connection"
            case Charge():
                outcome = self.provider.charge(call)
            case Refund() if lost and self.random.random() < 0.5:
                return CallOutcome.UNKNOWN, "no connection"
            case Refund():
                self.provider.refunds[call.key] = (call.reference, call.amount_minor)
                outcome = CallOutcome.REFUNDED
            case _:
                taken = self.provider.taken(call.reference)
                outcome = CallOutcome.CAPTURED if taken else CallOutcome.NOT_CHARGED
        return (CallOutcome.UNKNOWN, "lost") if lost else (outcome, f"{call.reference}-id")

    def _kill(self, shard: Shard) -> None:
        """Calls under way are forgotten and owed again; what they did, they did."""
        shard.calls, shard.answers = {}, []

    def _recount(self, sku: str) -> None:
        stock = self.stock(sku)
        self.ask(StockCounted(sku=sku, on_hand=max(0, stock.on_hand + self.random.randint(-2, 2))))

    # --- what must hold ---

    def stock(self, sku: str) -> Stock:
        found = [s for _, s in self._all() if isinstance(s, Stock) and s.sku == sku]
        return found[0]

    def _all(self) -> Iterator[tuple[str, State]]:
        return (pair for shard in self.shards for pair in shard.live())

    def check_stock(self) -> None:
        """At every point of the log."""
        held = dict.fromkeys(STOCK, 0)
        for _, state in self._all():
            if isinstance(state, Reservation):
                for line in state.lines:
                    held[line.sku] += line.quantity
        for _, state in self._all():
            if isinstance(state, Stock):
                assert state.initial == state.available + state.reserved + state.sold
                assert min(state.available, state.reserved, state.sold) >= 0
                assert state.reserved == held[state.sku]

    def check_money(self) -> None:
        """When it is quiet; an order that needs attention may owe or be owed."""
        for order_id, created in self.orders.items():
            status, net = self.statuses[order_id], self.provider.net(order_id)
            assert self.provider.taken(order_id) in (0, created.total_minor)
            if status is OrderStatus.CONFIRMED:
                assert net == created.total_minor
            elif status is not OrderStatus.NEEDS_ATTENTION:
                assert net == 0

    def check_all_over(self) -> None:
        """Every order is terminal and gone from the live set, and all that is left of it is what was sold."""
        assert set(self.statuses.values()) <= TERMINAL
        assert [state for _, state in self._all() if not isinstance(state, Stock)] == []
        sold = dict.fromkeys(PRICES, 0)
        for order_id, created in self.orders.items():
            if self.statuses[order_id] is OrderStatus.CONFIRMED:
                for item in created.items:
                    sold[item.sku] += item.quantity
        assert {sku: self.stock(sku).sold for sku in STOCK} == {sku: sold[sku] for sku in STOCK}
        assert [self.stock(sku).reserved for sku in STOCK] == [0] * len(STOCK)


def simulate(random: Random, orders: int, **ills: float) -> Simulation:
    """Place orders amid everything else, and let it all come to rest."""
    simulation = Simulation(random, **ills)
    for number in range(orders):
        simulation.place(f"o-{number}")
        for _ in range(random.randrange(20)):
            if random.random() < 0.2:
                simulation.meddle()
            simulation.step()
    simulation.run()
    return simulation


RANDOM = st.randoms(use_true_random=False)
TROUBLE = st.sampled_from([0.0, 0.2, 0.6, 1.0])
SETTINGS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@given(random=RANDOM, orders=st.integers(1, 8), trouble=TROUBLE)
@SETTINGS
def test_every_order_is_decided_or_parked_and_money_and_stock_add_up(
    random: Random, orders: int, trouble: float
) -> None:
    simulation = simulate(random, orders, trouble=trouble, poison=0.0)
    assert set(simulation.statuses.values()) <= TERMINAL | {OrderStatus.NEEDS_ATTENTION}
    simulation.check_money()
    if not simulation.parked():
        simulation.check_all_over()
    simulation.heal()
    simulation.check_all_over()
    simulation.check_money()


@given(random=RANDOM, orders=st.integers(1, 8), trouble=TROUBLE)
@SETTINGS
def test_facts_that_were_set_aside_and_replayed_leave_nothing_undone(
    random: Random, orders: int, trouble: float
) -> None:
    simulation = simulate(random, orders, trouble=trouble, poison=0.1)
    simulation.heal()
    simulation.check_all_over()
    simulation.check_money()
