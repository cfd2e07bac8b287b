"""The shards of this process: which incarnation runs where, and how one is started.

What has to outlive an incarnation (its past) is kept here; everything else begins anew with each start.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import trio
from betterproto import Message

from actors import ACTORS, Place, Terms
from messages.routing import Routes, shard_of
from runtime.mailbox import Ask
from runtime.past import Past
from runtime.recall import Address
from runtime.shard import Shard, Surroundings


class Shards:
    """A shard for each address that the counts name."""

    def __init__(self, terms: Terms, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        self._terms = terms
        self._pasts = {address: Past() for address in self.addresses()}
        self._running: dict[Address, Shard] = {}
        self._incarnations = itertools.count(1)
        self._recovered: set[Address] = set()
        self._changed = trio.Event()

    def addresses(self) -> Iterator[Address]:
        """Every shard there is, actor by actor."""
        for actor, count in self.counts.items():
            for shard in range(count):
                yield Address(actor, shard)

    def routes(self) -> Routes:
        """Who hears what, with these counts."""
        hears = {name: make(self._terms, Place(0, 1)).hears for name, make in ACTORS.items()}
        return Routes(hears, self.counts)

    async def run(
        self,
        address: Address,
        surroundings: Callable[[], Surroundings],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run one incarnation; a supervised child."""
        actor = ACTORS[address.actor](self._terms, Place(address.shard, self.counts[address.actor]))
        announce = partial(self._announce, address)
        past, incarnation = self._pasts[address], next(self._incarnations)
        shard = Shard(address, actor, surroundings(), past, announce, incarnation)
        self._running[address] = shard
        await shard.run(task_status=task_status)

    def _announce(self, address: Address) -> None:
        self._recovered.add(address)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def running(self) -> Mapping[Address, Shard]:
        """The incarnations that are taking asks now."""
        return {address: shard for address, shard in self._running.items() if shard.is_taking}

    async def wait_recovered(self, actor: str, key: str) -> None:
        """Wait until what earlier processes accepted about a key is known in this one, too."""
        address = self.address_of(actor, key)
        while address not in self._recovered:
            await self._changed.wait()

    async def wait_taking(self, actor: str, key: str) -> Shard:
        """The shard that owns a key, as soon as it runs."""
        address = self.address_of(actor, key)
        while True:
            shard = self._running.get(address)
            if shard is not None and shard.is_taking:
                return shard
            await self._changed.wait()

    async def ask(self, actor: str, key: str, fact: Message, traceparent: str = "") -> Ask:
        """Put an ask into the mailbox of the shard that owns a key; wait for it, or for many, afterwards.

        Raises:
            OverloadedError: too many are waiting there.
        """
        shard = await self.wait_taking(actor, key)
        ask = Ask(fact, traceparent)
        shard.mailbox.ask(ask)
        return ask

    def address_of(self, actor: str, key: str) -> Address:
        """The shard that owns a key."""
        return Address(actor, shard_of(key, self.counts[actor]))
