"""What expired while nobody ran is noticed at the start; nothing is passed over in silence."""

from dataclasses import replace
from typing import Any

import pytest
import trio

from actors import ACTORS, Place
from messages.record import Cursor, Snapshot, encode_snapshot
from runtime.gaps import GapError, expired_unknown
from runtime.memory import MemoryLog
from runtime.past import Past
from runtime.recall import Address, Memory
from runtime.shard import Shard


def memory(*, cursor: int, snapshot: int) -> Memory:
    return Memory(actor=None, cursor=Cursor(cursor), snapshot_seq=snapshot)  # type: ignore[arg-type]  # Not asked.


@pytest.mark.parametrize(
    ("cursor", "snapshot", "first_seq", "lacking"),
    [
        (0, 0, 1, 0),  # The very first start.
        (40, 0, 1, 0),  # No snapshot yet, and nothing has expired.
        (40, 38, 39, 0),  # All that expired is in the snapshot, and was read.
        (40, 38, 40, 1),  # Record 39 may have been a record of its own.
        (30, 38, 39, 8),  # 31 to 38 were never read.
        (0, 0, 39, 38),  # Its snapshot has expired, too.
    ],
)
def test_a_shard_lacks_what_expired_unread_or_is_in_no_snapshot(
    cursor: int, snapshot: int, first_seq: int, lacking: int
) -> None:
    assert expired_unknown(memory(cursor=cursor, snapshot=snapshot), first_seq) == lacking


@pytest.fixture
def start_shard(shop: Any, nursery: trio.Nursery) -> Any:
    """Starts one shard alone, as the next process would."""

    async def start(address: Address, *, accept_loss: bool = False) -> None:
        around = replace(
            shop.process._surroundings, log=MemoryLog(shop.store), accept_loss=accept_loss
        )
        actor = ACTORS[address.actor](shop.terms, Place(address.shard, 1))
        await nursery.start(Shard(address, actor, around, Past()).run)

    return start


async def kill_and_expire(shop: Any) -> None:
    process = await shop.start()
    await shop.count(hat=10)
    await shop.place("o1", hat=1)
    await shop.wait_status("o1", "confirmed")
    process.kill()
    shop.store.expire(len(shop.store.entries))


async def test_a_stop_longer_than_retention_is_refused_with_what_to_do(
    shop: Any, start_shard: Any, autojump_clock: Any
) -> None:
    await kill_and_expire(shop)
    with pytest.raises(GapError, match=r"\d+ records have expired .*ACCEPT_LOSS=on") as caught:
        await start_shard(Address("order", 0))
    assert caught.value.exit_code == 78


async def test_on_request_a_shard_goes_on_without_what_has_expired(
    shop: Any, start_shard: Any, autojump_clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await kill_and_expire(shop)
    await start_shard(Address("order", 0), accept_loss=True)
    assert "records_expired_unread" in capsys.readouterr().out


async def test_a_log_older_than_the_snapshots_beside_it_is_refused(
    shop: Any, start_shard: Any, autojump_clock: Any
) -> None:
    await kill_and_expire(shop)
    snapshot = Snapshot(1_000, Cursor(1_200), [])
    shop.store.snapshots["order-0"] = encode_snapshot(snapshot)
    with pytest.raises(GapError, match=r"read the log up to 1200, and the log ends at \d+"):
        await start_shard(Address("order", 0))
