"""Which shard hears a fact. A key's shard is a stable hash of it, so every instance and every language agrees."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from zlib import crc32

from betterproto import Message

KeysOf = Callable[[Any], Iterable[str]]
"""From a fact to the keys of the actor that hears it."""


def by_order(fact: Any) -> tuple[str]:
    """The one key is the order's id."""
    return (fact.order_id,)


def by_skus(fact: Any) -> Iterable[str]:
    """A key for each stock item that the fact names."""
    skus: Iterable[str] = fact.skus
    return skus


def by_lines(fact: Any) -> Iterable[str]:
    """A key for each line's stock item."""
    return [line.sku for line in fact.lines]


def by_sku(fact: Any) -> tuple[str]:
    """The one key is the stock item."""
    return (fact.sku,)


def shard_of(key: str, count: int) -> int:
    """CRC-32 of the key's UTF-8, modulo the number of shards (fixed with the stream)."""
    return crc32(key.encode()) % count


class Routes:
    """From a fact to the (actor, shard) pairs that hear it.

    `hears` is each actor's table of facts and keys; `shards` each actor's number of shards.
    """

    def __init__(
        self, hears: Mapping[str, Mapping[type[Message], KeysOf]], shards: Mapping[str, int]
    ) -> None:
        self.shards = dict(shards)
        self._by_type: dict[type[Message], list[tuple[str, KeysOf, int]]] = {}
        for actor, table in hears.items():
            for kind, keys_of in table.items():
                self._by_type.setdefault(kind, []).append((actor, keys_of, shards[actor]))

    def heard_by(self, fact: Message) -> list[tuple[str, int]]:
        """Every addressed shard, once each. A fact that nobody hears is addressed to nobody."""
        addressed: list[tuple[str, int]] = []
        for actor, keys_of, count in self._by_type.get(type(fact), ()):
            for key in keys_of(fact):
                address = (actor, shard_of(key, count))
                if address not in addressed:
                    addressed.append(address)
        return addressed

    def is_heard(self, kind: type[Message]) -> bool:
        return kind in self._by_type
