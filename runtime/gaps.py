"""Gaps: what a shard has to know and the log no longer has. Found at its start, and never passed over in silence.

While an instance runs, each shard renews its snapshot and its cursor four times in RETENTION. A stop of everything
that lasts longer than what is left by then may outlive records that nobody has read, or that no snapshot holds.
"""

import structlog

from runtime.log import BrokerConfigError, Log
from runtime.recall import Address, Memory

_logger = structlog.get_logger("runtime.gaps")


class GapError(BrokerConfigError):
    """Records that a shard needs are not in the log: a person has to decide."""


async def check_whole(
    log: Log, address: Address, memory: Memory, newest_seq: int, *, accept_loss: bool
) -> None:
    """Hold what a shard has recalled against what the log still keeps; `newest_seq` is the record just appended.

    Raises:
        GapError: they do not fit together; expired records are passed with `accept_loss`, and counted.
    """
    known_seq = max(memory.snapshot_seq, memory.cursor.seq)
    if known_seq > newest_seq:
        raise GapError(
            f"{address} has read the log up to {known_seq}, and the log ends at {newest_seq}: it was restored from a"
            " backup older than the snapshots beside it. Restore a newer backup of stream ORDERS, or all from one time"
        )
    expired = expired_unknown(memory, await log.first_seq())
    if not expired:
        return
    if not accept_loss:
        raise GapError(
            f"{address} was stopped for so long that {expired} records have expired that it had not read, or not kept"
            " in a snapshot: orders may be lost in them. Restore a backup from before, or go on without them with"
            " ACCEPT_LOSS=on; and keep RETENTION well above the longest stop"
        )
    _logger.error("records_expired_unread", shard=str(address), records=expired)


def expired_unknown(memory: Memory, first_seq: int) -> int:
    """How many expired records a shard may lack: those that it has not read, or that its snapshot does not hold."""
    return max(0, first_seq - 1 - min(memory.cursor.seq, memory.snapshot_seq))
