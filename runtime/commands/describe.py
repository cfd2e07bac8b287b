"""What the product consists of, for machines: streams, subjects, message types, actors, variables. Needs no broker."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from messages.codec import PACKAGE, descriptor, fact_names
from runtime.commands.output import write_json
from runtime.config_variables import VARIABLES, Config
from runtime.jetstream_streams import EVENTS, SNAPSHOTS, VIEWS
from runtime.letters import AGAIN
from runtime.reading import actor_at
from runtime.recall import INTAKE, JOURNALS, LETTERS, STREAM_PREFIX, Address
from runtime.system import shard_counts

Json = dict[str, Any]

_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}
_FRAMED = f"{PACKAGE}.Record, behind ORD, a version byte and the CRC-32 of the rest"


async def describe(config: Config) -> None:
    await write_json(description(config))


def description(config: Config) -> Json:
    """Everything by name, as JSON has it."""
    counts = shard_counts(config)
    actors = {name: actor_at(Address(name, 0), count) for name, count in counts.items()}
    heard_by: dict[str, list[str]] = {}
    for name, actor in actors.items():
        for fact in actor.hears:
            heard_by.setdefault(fact.__name__, []).append(name)
    return {
        "streams": list(_streams(config)),
        "subjects": list(_subjects()),
        "messages": [_message(descriptor(name), heard_by.get(name, [])) for name in fact_names()],
        "actors": [
            {
                "name": name,
                "shards": counts[name],
                "hears": sorted(fact.__name__ for fact in actor.hears),
                "journal": f"{JOURNALS}.{name}.<shard>",
                "has_public_view": actor.view is not None,
            }
            for name, actor in actors.items()
        ],
        "variables": [
            {"name": v.name, "default": v.default_shown, "meaning": v.meaning}
            for v in VARIABLES.values()
        ],
    }


def _streams(config: Config) -> Iterator[Json]:
    kept = {"retention_s": config.retention_s, "replicas": config.stream_replicas}
    yield {
        "name": EVENTS,
        "subjects": [f"{STREAM_PREFIX}.>"],
        "holds": "all that happened; the only one that cannot be rebuilt",
        **kept,
    }
    yield {
        "name": VIEWS,
        "subjects": ["$KV.orders.>"],
        "holds": "the newest public view of each order: the key-value bucket `orders`",
        **kept,
    }
    yield {
        "name": SNAPSHOTS,
        "subjects": ["$O.snapshots.C.>", "$O.snapshots.M.>"],
        "holds": "what each shard knew at its last snapshot: the object store `snapshots`",
        **kept,
    }


def _subjects() -> Iterator[Json]:
    yield {
        "subject": f"{INTAKE}.<order_id>",
        "holds": "an order from anyone's producer",
        "payload": f"{PACKAGE}.OrderCreated",
        "appended_by": "anyone",
    }
    yield {
        "subject": f"{JOURNALS}.<actor>.<shard>",
        "holds": "what a shard has decided, one record a commit",
        "payload": _FRAMED,
        "appended_by": "the owner of the shard",
    }
    yield {
        "subject": f"{LETTERS}.<actor>.<shard>",
        "holds": "what a shard has set aside, with the reason",
        "payload": f"{PACKAGE}.DeadLetter",
        "appended_by": "the owner of the shard; what was decided about it, by `orders dead`",
    }
    yield {
        "subject": f"{AGAIN}.<actor>.<shard>",
        "holds": "a dead letter that the shard is to hear again",
        "payload": f"{PACKAGE}.DeadLetter, framed like a record",
        "appended_by": "`orders dead replay`",
    }


def _message(message: Descriptor, heard_by: list[str]) -> Json:
    return {
        "name": message.full_name,
        "file": message.file.name,
        "heard_by": heard_by,
        "fields": [
            {
                "number": field.number,
                "name": field.name,
                "type": field.message_type.full_name if field.message_type else _TYPES[field.type],
                "repeated": field.is_repeated,
            }
            for field in message.fields
        ],
    }
