"""Whether what this process knows of a shard is still the newest there is: asked of the log, by many at once.

A process that another has taken over from learns of it with its next append. Until then what it remembers is old, and
what it has never heard of may exist. Only the log can tell, and only when it is asked after the question came up.
"""

from dataclasses import dataclass, field

import trio

from runtime.log import Log
from runtime.recall import Address
from runtime.succession import owner_of


@dataclass(slots=True, eq=False)
class _Look:
    """One look at a journal's newest record, for all who have asked before it began."""

    owner: str | None = None
    done: trio.Event = field(default_factory=trio.Event)


class Ownership:
    """Looks who owns a shard. However many ask, one look at a time is under way for each shard."""

    def __init__(self, log: Log, instance_id: str) -> None:
        self._log, self._instance_id = log, instance_id
        self._coming: dict[Address, _Look] = {}
        self._turns: dict[Address, trio.Lock] = {}

    async def is_ours(self, address: Address) -> bool:
        """Whether no other instance has owned this shard between our recovery of it and this call.

        Raises:
            BrokerLostError: nobody knows.
        """
        while (owner := await self._owner(address)) is None:
            pass  # Whoever looked for us all has been cancelled, or has failed: now one of us looks.
        # A stranger's message is no owner: the shard finds it with its next append.
        return owner.rpartition("/")[0] in ("", self._instance_id)

    async def _owner(self, address: Address) -> str | None:
        look = self._coming.get(address)
        if look is not None:
            await look.done.wait()
            return look.owner
        look = self._coming[address] = _Look()
        try:
            async with self._turns.setdefault(address, trio.Lock()):
                del self._coming[address]  # Who asks from now on needs a later one.
                look.owner = owner_of(await self._log.last(address.journal))
                return look.owner
        finally:
            if self._coming.get(address) is look:
                del self._coming[address]
            look.done.set()
