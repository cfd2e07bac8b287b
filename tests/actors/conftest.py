"""Given what an actor knows, when it hears something, then it owes this: the words of the tests in this folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from betterproto import Message

from actors.actor import Actor, Answer, Heard, Remains, State

NOW_MS = 1_700_000_000_000


@dataclass
class Scenario:
    """One shard of an actor; the states are kept as a host would keep them."""

    actor: Actor
    states: dict[str, State | Remains] = field(default_factory=dict)
    now_ms: int = NOW_MS
    facts: list[Message] = field(default_factory=list)
    answer: Answer | None = None

    def at(self, now_ms: int) -> "Scenario":
        self.now_ms = now_ms
        return self

    def when(self, heard: Heard) -> "Scenario":
        step = self.actor.react(self.states, heard, self.now_ms)
        self.facts, self.answer = list(step.facts), step.answer
        for key, state in step.states.items():
            if state is None:
                self.states.pop(key)
            else:
                self.states[key] = state.remains or state
        return self

    def then(self, *facts: Message) -> "Scenario":
        assert self.facts == list(facts)
        return self


Given = Callable[..., Scenario]


@pytest.fixture
def given() -> Given:
    """From an actor and the states it has, by key, to a scenario."""

    def start(actor: Actor, states: Mapping[str, Any] | None = None) -> Scenario:
        return Scenario(actor, dict(states or {}))

    return start
