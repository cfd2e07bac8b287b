"""What the streams have to look like: created once, verified at every start, never repaired.

A stream that has drifted (another retention, a replica lost, rollups allowed) may have lost what
we rely on. What it is and what it should be is told to a person, who decides.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime.jetstream_api import STREAM_NOT_FOUND, Api, translated
from runtime.log import BrokerConfigError, BrokerLostError

EVENTS: Final = "ORDERS"
VIEWS: Final = "KV_orders"
SNAPSHOTS: Final = "OBJ_snapshots"
DUPLICATE_WINDOW_S: Final = 1  # As good as none: the fence tells duplicates, for ever.
_SHARDS: Final = "orders.shards."  # Prefix of the stream's metadata, one entry an actor.


class StreamMismatchError(BrokerConfigError):
    """A stream is there and is not what this configuration needs."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What of the streams is ours to choose. The shard counts are fixed with the first start."""

    retention_s: float
    replicas: int
    shards: Mapping[str, int]


async def prepare(api: Api, layout: Layout) -> None:
    """Create what does not exist, and verify the rest.

    Raises:
        StreamMismatchError: a stream differs, or went missing from among its companions.
        BrokerConfigError: there is no JetStream for us.

    """
    wanted = {config["name"]: config for config in _configs(layout)}
    found = {name: await _find(api, name) for name in wanted}
    if found[EVENTS] is None and any(found.values()):
        left = " and ".join(name for name, config in found.items() if config)
        raise StreamMismatchError(
            f"stream {EVENTS} is gone, but {left} are still there: the orders are lost unless you"
            f" restore it from a backup; to start with nothing, delete {left} too"
        )
    for name, config in wanted.items():
        there = found[name] or (await api.call(f"STREAM.CREATE.{name}", config))["config"]
        if differences := list(_differences(config, there)):
            raise StreamMismatchError(
                f"stream {name} is not as configured: {'; '.join(differences)}."
                " Configure what is there, or change the stream knowingly (nats stream edit)"
            )


async def _find(api: Api, name: str) -> Any:
    try:
        error, answer = await api.try_call(f"STREAM.INFO.{name}")
    except BrokerLostError:
        if api.bridge.connected and not api.bridge.has_jetstream:
            raise BrokerConfigError(
                "the broker runs without JetStream: enable it there (-js, or jetstream {} in its"
                " configuration), or let NATS_URL name a broker that has it"
            ) from None
        raise
    if error is None:
        return answer["config"]
    if error.err_code == STREAM_NOT_FOUND:
        return None
    raise translated(error, f"stream {name}")


def _configs(layout: Layout) -> Iterator[dict[str, Any]]:
    """The streams, the one that cannot be rebuilt first: without the others it is whole."""
    common = {
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": round(layout.retention_s * 1e9),
        "num_replicas": layout.replicas,
        "allow_direct": True,
        "duplicate_window": DUPLICATE_WINDOW_S * 1_000_000_000,
    }
    yield common | {
        "name": EVENTS,
        "subjects": ["ORDER.>"],
        "allow_rollup_hdrs": False,
        "metadata": {f"{_SHARDS}{actor}": str(n) for actor, n in sorted(layout.shards.items())},
    }
    yield common | {  # A key-value bucket to every NATS tool.
        "name": VIEWS,
        "subjects": ["$KV.orders.>"],
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_atomic": True,
    }
    yield common | {  # An object store to every NATS tool.
        "name": SNAPSHOTS,
        "subjects": ["$O.snapshots.C.>", "$O.snapshots.M.>"],
        "allow_rollup_hdrs": True,
    }


def _differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    for key, value in wanted.items():
        if key == "metadata":
            kept = there.get(key) or {}
            ours = {name: kept[name] for name in sorted(kept) if name.startswith(_SHARDS)}
            for name in sorted(value.keys() | ours.keys()):
                if value.get(name) != ours.get(name):
                    actor = name.removeprefix(_SHARDS)
                    yield f"{ours.get(name)} shards of {actor}, not {value.get(name)}"
        elif there.get(key, False) != value:  # The server leaves out what is false.
            yield f"{key} is {there.get(key)!r}, not {value!r}"
