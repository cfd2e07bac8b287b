"""Reading what the broker has, with no instance running: a connection for the time of it, and finite reads of the log.

A broker without our stream is told about, not given one; and shard counts, retention and replicas must be those that
the streams were made with.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from actors import ACTORS, Place, Terms
from actors.actor import Actor, State
from messages.routing import shard_of
from runtime.bridge import Bridge
from runtime.config_variables import Config
from runtime.desk import read_waiting
from runtime.embedded import EmbeddedServer
from runtime.jetstream import JetStreamLog, Layout
from runtime.jetstream_api import STREAM_NOT_FOUND, Api
from runtime.jetstream_streams import EVENTS
from runtime.log import BrokerLostError, Entry, Log, LogError
from runtime.recall import Address
from runtime.strangers import recall_own
from runtime.system import broker_address, shard_counts
from runtime.trace_context import trace_id_of

CONNECT_S = (
    10.0  # An instance that has just begun to start needs some seconds until its server answers.
)


class NothingStoredError(LogError):
    """Nobody has ever placed an order there, or it is the wrong place."""


@asynccontextmanager
async def open_broker(config: Config) -> AsyncIterator[JetStreamLog]:
    """The log of NATS_URL; of the instance that runs on the store; or of a server started for as long as this is open.

    Raises:
        NothingStoredError: there are no orders at all.
        BrokerLostError: no broker answers.
        BrokerConfigError: the broker refuses us, or its streams are not as configured.
        ServerEndedError: the server that was started went away.
    """
    try:
        async with trio.open_nursery() as nursery:
            server = _server_of(config)
            if server is not None and not server.is_in_use():
                await nursery.start(server.run)
            address = broker_address(config, server)
            bridge = Bridge(address, name=config.instance_id)
            await nursery.start(bridge.run)
            await _wait_connected(bridge, ", ".join(address.servers))
            yield await _verified_log(bridge, config)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise only_error(group) from None


async def read_to_end(
    log: Log, subjects: Sequence[str], on_entries: Callable[[Sequence[Entry]], Awaitable[None]]
) -> None:
    """Pass on, a batch at a time, every entry that the log has now on these subjects."""
    async with log.read(0, subjects) as reader:
        left = reader.backlog
        while left > 0:
            entries = (await reader.take())[:left]
            left -= len(entries)
            await on_entries(entries)


async def read_order(log: Log, shards: int, order_id: str) -> Mapping[str, Any] | None:
    """One order's newest public view: what its shard knows, else what was shown last, else what waits for the shard."""
    address = Address("order", shard_of(order_id, shards))
    actor = actor_at(address, shards)
    memory = await recall_own(log, address, actor, with_archive=False)
    if order_id in memory.live:
        return public_view(actor, memory.live[order_id], memory.traces.get(order_id, ""))
    if order_id in memory.recent:
        return public_view(actor, *memory.recent[order_id])
    shown = await log.get_view(order_id) or await read_waiting(log, order_id)
    view: Mapping[str, Any] | None = msgspec.json.decode(shown) if shown else None
    return view


def public_view(actor: Actor, state: State, traceparent: str) -> Mapping[str, Any]:
    """What the public sees of an order's state."""
    assert actor.view is not None
    return {**actor.view(state), "trace_id": trace_id_of(traceparent)}


def actor_at(address: Address, shards: int) -> Actor:
    """The actor of a shard, for those who only decode its states."""
    return ACTORS[address.actor](Terms(), Place(address.shard, shards))


def only_error(group: BaseException) -> BaseException:
    """The one error at the bottom of nested groups; a group of several stays one."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group


def _server_of(config: Config) -> EmbeddedServer | None:
    """The embedded server, running or not, where there is a store that it has served before."""
    if not config.embedded:
        return None
    if not (config.nats_store_dir / "port").exists():
        raise NothingStoredError(
            f"there are no orders in {config.nats_store_dir}: no instance has ever run there; set NATS_STORE_DIR to the"
            " directory, or NATS_URL to the broker, that the instance uses"
        )
    return EmbeddedServer(config.nats_store_dir)


async def _wait_connected(bridge: Bridge, servers: str) -> None:
    with trio.move_on_after(CONNECT_S):
        await bridge.wait_connected()
        return
    raise BrokerLostError(f"no broker answers at {servers}: start it, or check NATS_URL")


async def _verified_log(bridge: Bridge, config: Config) -> JetStreamLog:
    error, _ = await Api(bridge).try_call(f"STREAM.INFO.{EVENTS}")
    if error is not None and error.err_code == STREAM_NOT_FOUND:
        raise NothingStoredError(
            f"there are no orders on this broker: it has no stream {EVENTS}; check NATS_URL and"
            " NATS_STORE_DIR, or start an instance with `orders run`"
        )
    log = JetStreamLog(bridge)
    await log.prepare(Layout(config.retention_s, config.stream_replicas, shard_counts(config)))
    return log
