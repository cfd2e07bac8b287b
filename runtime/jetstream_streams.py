"""What the streams have to look like: created once, verified at every start and while we run, never repaired.

A stream that has drifted (another retention, a replica lost, rollups allowed) may have lost what
we rely on. What it is and what it should be is told to a person, who decides.

All three carry one id in their metadata, made up at the first start: so streams of different logs
are not taken for one, and a backup, which keeps metadata, is. The log is created last: without it,
companions that hold something are what is left of a log that was lost.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from runtime.jetstream_api import STREAM_NOT_FOUND, Api, translated
from runtime.log import BrokerConfigError, BrokerLostError

EVENTS: Final = "ORDERS"
VIEWS: Final = "KV_orders"
SNAPSHOTS: Final = "OBJ_snapshots"
NAMES: Final = (SNAPSHOTS, VIEWS, EVENTS)
DUPLICATE_WINDOW_S: Final = 1  # As good as none: the fence tells duplicates, for ever.
LOOKS: Final = (
    4  # At a stream that seems gone: a cluster that has just come up may not know it yet.
)
LOOK_AGAIN_S: Final = 0.5
LOOK_TIMEOUT_S: Final = 2.0  # While a cluster elects a leader, a request is not late but lost.
SILENCE_S: Final = 4.0  # Of a follower that is heard from every second.
_NOBODY: Final = "ORDER.journal.nobody"
_OURS: Final = "orders."  # Prefix of what we keep in a stream's metadata.
_LOG_ID: Final = f"{_OURS}log"
_SHARDS: Final = f"{_OURS}shards."  # One entry an actor, in the log's.


class StreamMismatchError(BrokerConfigError):
    """A stream is there and is not what this configuration needs."""


class StreamLostError(StreamMismatchError):
    """A stream that we had is gone, or another one stands in its place."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What of the streams is ours to choose. The shard counts are fixed with the first start."""

    retention_s: float
    replicas: int
    shards: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Found:
    """A stream as the broker describes it."""

    config: Mapping[str, Any]
    created: str
    messages: int = 0
    subjects: int = 0
    last_seq: int = 0

    @property
    def log_id(self) -> str:
        return str((self.config.get("metadata") or {}).get(_LOG_ID, ""))


_Streams = Mapping[str, _Found]


class Streams:
    """The streams as one process knows them: once prepared, they stay the same ones."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._layout: Layout | None = None
        self._log_id = ""
        self._created: Mapping[str, str] = {}

    async def prepare(self, layout: Layout, *, accept_loss: bool = False) -> None:
        """Create the streams at the very first start; verify them at every other.

        With `accept_loss` companions of the log that are gone are made anew, empty.

        Raises:
            StreamLostError: one of them was lost; nothing was changed.
            StreamMismatchError: one of them is not what `layout` says; nothing was changed.
            BrokerConfigError: there is no JetStream for us.
            BrokerLostError: JetStream does not answer.
        """
        self._api.has_replicas = layout.replicas > 1
        self._layout = layout
        if self._log_id:
            await self.verify()
            return
        found = await self._find_all()
        can_go_on = accept_loss and EVENTS in found and len(found) < len(NAMES)
        if (loss := _loss(found)) and not can_go_on:
            raise StreamLostError(loss)
        if len(found) < len(NAMES):
            found = await self._create_missing(layout, found)
        self._check(found, layout)
        self._log_id = found[EVENTS].log_id

    async def verify(self) -> None:
        """Look whether they are still the same, and as they should be.

        Raises:
            Like `prepare`.
        """
        assert self._layout is not None  # It is prepared first.
        found = await self._find_all()
        gone = [name for name in NAMES if name not in found]
        if gone:
            raise StreamLostError(_gone(gone))
        self._check(found, self._layout)

    async def _find_all(self) -> _Streams:
        """Look at all of them; again, before one that should be there is said to be gone."""
        found = await self._look()
        for _ in range(LOOKS - 1):
            if len(found) == len(NAMES) or not (self._log_id or _loss(found)):
                break
            await trio.sleep(LOOK_AGAIN_S)
            found = await self._look()
        return found

    async def _look(self) -> _Streams:
        found = {name: await _find(self._api, name) for name in NAMES}
        if found[EVENTS] is not None:
            await self._api.newest(EVENTS, _NOBODY)  # A cluster may describe streams, and not read.
        return {name: stream for name, stream in found.items() if stream is not None}

    async def _create_missing(self, layout: Layout, found: _Streams) -> _Streams:
        log_ids = (found[name].log_id for name in reversed(NAMES) if name in found)
        log_id = next(log_ids, None) or uuid.uuid4().hex
        created = dict(found)
        for config in _configs(layout, log_id):
            if config["name"] not in found:
                answer = await self._api.call(f"STREAM.CREATE.{config['name']}", config)
                created[config["name"]] = _Found(answer["config"], answer["created"])
        return created

    def _check(self, found: _Streams, layout: Layout) -> None:
        log_id = self._log_id or found[EVENTS].log_id
        for config in reversed(list(_configs(layout, log_id))):
            name = config["name"]
            if found[name].log_id != log_id or not log_id:
                raise StreamLostError(_another(name, found[name].log_id, log_id))
            if differences := list(_differences(config, found[name].config)):
                raise StreamMismatchError(
                    f"stream {name} is not as configured: {'; '.join(differences)}."
                    " Configure what is there, or change the stream knowingly (nats stream edit)"
                )
            if found[name].created != self._created.get(name, found[name].created):
                raise StreamLostError(
                    f"stream {name} was replaced under way, by one created at {found[name].created}:"
                    " what it held may be lost. Restore it from a backup, and start again"
                )
        self._created = {name: found[name].created for name in NAMES}


async def _find(api: Api, name: str) -> _Found | None:
    try:
        error, answer = await api.try_call(f"STREAM.INFO.{name}", timeout_s=LOOK_TIMEOUT_S)
    except BrokerLostError:
        if api.bridge.connected and not api.bridge.has_jetstream:
            raise BrokerConfigError(
                "the broker runs without JetStream: enable it there (-js, or jetstream {} in its"
                " configuration), or let NATS_URL name a broker that has it"
            ) from None
        raise
    if error is None:
        check_majority(name, answer.get("cluster") or {})
        state = answer["state"]
        subjects = state.get("num_subjects", 0)
        return _Found(
            answer["config"], answer["created"], state["messages"], subjects, state["last_seq"]
        )
    if error.err_code == STREAM_NOT_FOUND:
        return None
    raise translated(error, f"stream {name}")


def check_majority(name: str, cluster: Mapping[str, Any]) -> None:
    """A leader that has lost its followers answers on for a while, though nothing can be stored any more.

    Raises:
        BrokerLostError: it hears from too few of them.
    """
    peers = cluster.get("replicas") or ()
    heard = [p for p in peers if not p.get("offline") and p.get("active", 0) < SILENCE_S * 1e9]
    if (1 + len(heard)) * 2 <= 1 + len(peers):
        raise BrokerLostError(
            f"stream {name} has lost its majority: {len(heard)} of {len(peers)} follow"
        )


def _loss(found: _Streams) -> str:
    """What was lost before we came, in words for whoever can restore it; empty if nothing was."""
    companions = [name for name in NAMES if name != EVENTS and name in found]
    if EVENTS not in found:
        left = " and ".join(name for name in companions if found[name].last_seq)
        return left and (
            f"stream {EVENTS} is gone, but {left} are still there: the orders are lost unless you"
            f" restore it from a backup; to start with nothing, delete {' and '.join(companions)} too"
        )
    if len(companions) < len(NAMES) - 1:
        return _gone([name for name in NAMES if name not in found])
    # The claim to write views may come before the log's first record; a view may not.
    if not found[EVENTS].last_seq and (found[SNAPSHOTS].messages or found[VIEWS].subjects > 1):
        return (
            f"stream {EVENTS} is empty, and {SNAPSHOTS} and {VIEWS} tell of orders: it was made"
            " anew after a loss; restore it from a backup, or start with nothing by deleting all three"
        )
    return ""


def _gone(names: list[str]) -> str:
    return (
        f"stream {' and '.join(names)} is gone: restore it from the backup that the other streams"
        " go with; where there is none and ORDERS is still there, ACCEPT_LOSS=on makes it anew, empty"
    )


def _another(name: str, seen: str, wanted: str) -> str:
    if not seen:
        return (
            f"stream {name} was not made by this program, or not by this version of it: it has no"
            f" {_LOG_ID} in its metadata. Restore the right one from a backup, or delete it"
        )
    return (
        f"stream {name} belongs to another log ({seen}, not {wanted}): restore {', '.join(NAMES)}"
        " from backups of one log"
    )


def _configs(layout: Layout, log_id: str) -> Iterator[dict[str, Any]]:
    """The streams in the order of their creation."""
    common = {
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": round(layout.retention_s * 1e9),
        "num_replicas": layout.replicas,
        "allow_direct": True,
        "duplicate_window": DUPLICATE_WINDOW_S * 1_000_000_000,
        "metadata": {_LOG_ID: log_id},
    }
    yield common | {  # An object store to every NATS tool.
        "name": SNAPSHOTS,
        "subjects": ["$O.snapshots.C.>", "$O.snapshots.M.>"],
        "allow_rollup_hdrs": True,
    }
    yield common | {  # A key-value bucket to every NATS tool.
        "name": VIEWS,
        "subjects": ["$KV.orders.>"],
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_atomic": True,
    }
    shards = {f"{_SHARDS}{actor}": str(n) for actor, n in sorted(layout.shards.items())}
    yield common | {
        "name": EVENTS,
        "subjects": ["ORDER.>"],
        "max_msgs_per_subject": -1,  # A limit would drop the oldest, whatever `discard` says.
        "allow_rollup_hdrs": False,
        "deny_delete": True,  # Nobody takes a record out of the middle, by whatever tool.
        "deny_purge": True,
        "metadata": {_LOG_ID: log_id, **shards},
    }


def _differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    for key, value in wanted.items():
        if key == "metadata":
            kept = there.get(key) or {}
            ours = {name: kept[name] for name in sorted(kept) if name.startswith(_OURS)}
            for name in sorted(value.keys() | ours.keys()):
                if value.get(name) != ours.get(name):
                    actor = name.removeprefix(_SHARDS)
                    yield f"{ours.get(name)} shards of {actor}, not {value.get(name)}"
        elif there.get(key, False) != value:  # The server leaves out what is false.
            yield f"{key} is {there.get(key)!r}, not {value!r}"
