"""The nouns every actor is written in: state, step, call, answer. Values only; nothing here does anything.

An actor is a name, the facts it hears, and one pure function::

    react(states, heard, now_ms) -> Step

`states` is what the actor's shard knows, by key; `heard` is one fact; `now_ms` is the log's clock (milliseconds since
1970, never earlier than any time it was given before). The host applies the step, commits it, and only then acts on it.

Two kinds of intent live in the states themselves, so that recovering the states recovers them too:

- `State.due_ms`: when the clock passes it, the host lets the actor hear `Due(key)`.
- `State.call`: a call to the outside world that is owed. The host issues it once the state that owes it is durable,
  and again after every recovery, until the actor has heard the `CallAnswered` that clears it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeAlias

import msgspec
from betterproto import Message

from messages.routing import KeysOf


class State(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One key's durable state. Private to its actor; fields are only ever added at the end, with a default."""

    @property
    def remains(self) -> "Remains | None":
        """What is left to remember of something finished; the host then keeps that instead, for RETENTION."""
        return None

    @property
    def due_ms(self) -> int | None:
        """When the actor wants to hear `Due` for this key, on the log's clock."""
        return None

    @property
    def call(self) -> "Call | None":
        """The outside call this state is waiting for."""
        return None


class Remains(msgspec.Struct, frozen=True):
    """All that stays known of a finished key, small enough to keep millions: a code below 256 and 64 bits."""

    code: int
    digest: int


@dataclass(frozen=True, slots=True)
class Charge:
    """Take money from a card. `key` is the same for every attempt, so the provider takes it once.

    `again`: an attempt has been made, so the provider is asked what came of it first.
    """

    key: str
    reference: str
    amount_minor: int
    currency: str
    token: str
    again: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Refund:
    """Give back what `charge_id` took."""

    key: str
    reference: str
    charge_id: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Enquiry:
    """Ask what was taken under a reference, and take nothing."""

    reference: str


Call = Charge | Refund | Enquiry


class CallOutcome(StrEnum):
    """What is known after a call."""

    CAPTURED = "captured"  # The money is with us; `detail` is the charge id.
    DECLINED = "declined"  # The provider refused; `detail` is its code. Final.
    REFUNDED = "refunded"  # The money is back; `detail` is the refund id.
    NOT_CHARGED = "not_charged"  # Asked by reference: nothing was taken so far.
    UNKNOWN = "unknown"  # It may or may not have happened; `detail` says what was seen last.


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """Heard when the call that `key`'s state owed has come back."""

    key: str
    call: Call
    outcome: CallOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """Heard when the clock has passed `due_ms` of the state under `key`."""

    key: str


Heard = Message | CallAnswered | Due


class Outcome(StrEnum):
    """How an ask ended."""

    DONE = "done"  # It is so now, or was so already.
    REUSED = "reused"  # The order id exists with another body; nothing changed.
    TOO_LATE = "too_late"  # The order's status no longer allows it.
    UNKNOWN = "unknown"  # There is no such order (or stock item).
    INVALID = "invalid"  # It contradicts itself; `detail` says how.


@dataclass(frozen=True, slots=True)
class Answer:
    """What the asker is told once the step is durable."""

    outcome: Outcome
    status: str = ""
    detail: str = ""


class Step(msgspec.Struct, frozen=True):
    """What follows from one fact: states changed (None forgets a key), facts owed in order, an answer if asked.

    `can_wait` says that nobody waits for this: it may share the record of a later step, a moment afterwards.
    """

    states: Mapping[str, State | None] = msgspec.field(default_factory=dict)
    facts: tuple[Message, ...] = ()
    answer: Answer | None = None
    can_wait: bool = False


NOTHING = Step()

View: TypeAlias = "staticmethod[[Any], Mapping[str, Any]] | None"
"""From a state to what the public sees of it, JSON-able, under the state's key. None where nothing is public."""


class States(Protocol):
    """What a shard knows, by key: live states, and the remains of finished ones."""

    def get(self, key: str) -> Any | None: ...


class Actor(Protocol):
    """What the host needs to run one shard of an actor."""

    name: ClassVar[str]
    hears: ClassVar[Mapping[type[Message], KeysOf]]
    """Each fact it hears, and the keys of this actor that the fact is about: they decide which shards hear it."""
    states: ClassVar[Any]
    """The type, or the union of types, that its states have: how they are decoded."""

    view: ClassVar[View]

    def react(self, states: States, heard: Heard, now_ms: int) -> Step: ...
