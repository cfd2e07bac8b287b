"""A backup of the three streams, restored as NATS tools do it, is the same log; one of older records is refused."""

from dataclasses import dataclass
from typing import Any

import pytest
import trio

from runtime.bridge import Address, Bridge
from runtime.jetstream import JetStreamLog, Layout
from runtime.jetstream_api import Api
from runtime.jetstream_streams import NAMES
from runtime.link import Message

LAYOUT = Layout(retention_s=3600.0, replicas=1, shards={"order": 2})


@dataclass
class Backup:
    config: Any
    state: Any
    chunks: list[bytes]


@pytest.fixture
async def bridge(own_nats_server: Any, nursery: trio.Nursery) -> Bridge:
    bridge = Bridge(Address([own_nats_server.url]))
    await nursery.start(bridge.run)
    await bridge.wait_connected()
    return bridge


async def back_up(bridge: Bridge, name: str) -> Backup:
    """What `nats stream backup` does."""
    chunks: list[bytes] = []
    done = trio.Event()

    def on_message(message: Message) -> None:
        if not message.payload:
            done.set()
            return
        chunks.append(message.payload)
        if message.reply:  # The broker waits for this before it sends more.
            bridge.publish(message.reply.decode())

    inbox = bridge.new_inbox()
    subscription = bridge.subscribe(inbox, on_message, lambda _: None)
    asked = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": 65_536}
    answer = await Api(bridge).call(f"STREAM.SNAPSHOT.{name}", asked)
    with trio.fail_after(5):
        await done.wait()
    subscription.close()
    return Backup(answer["config"], answer["state"], chunks)


async def restore(bridge: Bridge, name: str, backup: Backup) -> None:
    """What `nats stream restore` does."""
    described = {"config": backup.config, "state": backup.state}
    answer = await Api(bridge).call(f"STREAM.RESTORE.{name}", described)
    for chunk in (*backup.chunks, b""):
        await bridge.request(answer["deliver_subject"], chunk)


async def test_what_is_restored_from_a_backup_is_taken_up_as_the_same_log(bridge: Bridge) -> None:
    log = JetStreamLog(bridge)
    await log.prepare(LAYOUT)
    seqs = [await log.append("ORDER.journal.order.0", b"record %d" % n) for n in range(3)]
    await log.put_views({"o1": b"view"})
    await log.put_snapshot("order-0", b"snapshot")

    backups = {name: await back_up(bridge, name) for name in NAMES}
    for name in NAMES:
        await Api(bridge).call(f"STREAM.DELETE.{name}")
    for name, backup in backups.items():
        await restore(bridge, name, backup)

    restored = JetStreamLog(bridge)
    await restored.prepare(LAYOUT)
    newest = await restored.last("ORDER.journal.order.0")
    assert newest is not None
    assert (newest.seq, newest.payload) == (seqs[-1], b"record 2")
    assert await restored.get_view("o1") == b"view"
    assert await restored.get_snapshot("order-0") == b"snapshot"
    assert await restored.append("ORDER.journal.order.0", b"next", expect=newest.seq) == 4
