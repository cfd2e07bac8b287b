"""P22: whatever happens to the bytes of a message, they are read in one way or refused, and quickly."""

import os
import time
from random import Random

import pytest
from betterproto import Message
from google.protobuf.descriptor import FieldDescriptor

from messages.codec import (
    DecodeError,
    decode,
    decode_strictly,
    descriptor,
    encode,
    fact_names,
    message_class,
    wire_class,
)
from runtime.chaos.poison import mutated

ALL = sorted(fact_names())
MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "30000"))  # Of all messages together.
STALL_S = 0.05


@pytest.mark.parametrize("name", ALL)
def test_p22_mutations_of_a_message_are_read_or_refused_and_never_stall(name: str) -> None:
    """What is read means one thing: the protobuf runtime reads the same, and it comes back as it was read."""
    random = Random(name)
    kind = message_class(name)
    sound = [_example(name, random) for _ in range(20)]
    slow: list[bytes] = []
    for _ in range(MUTATIONS // len(ALL)):
        payload = mutated(random.choice(sound), random)
        began_s = time.thread_time()
        read = _read(kind, payload)
        if time.thread_time() - began_s > STALL_S:
            slow.append(payload)
        if read is not None:
            assert decode(kind, encode(read)) == read
            assert wire_class(name).FromString(encode(read)) == wire_class(name).FromString(payload)
    assert [payload for payload in slow if _stalls_again(kind, payload)] == []


def _read(kind: type[Message], payload: bytes) -> Message | None:
    try:
        return decode_strictly(kind, payload)
    except DecodeError:
        return None


def _stalls_again(kind: type[Message], payload: bytes) -> bool:
    """Slow once can be the garbage collector; slow twice is the payload."""
    began_s = time.thread_time()
    _read(kind, payload)
    return time.thread_time() - began_s > STALL_S


def _example(name: str, random: Random) -> bytes:
    values: dict[str, object] = {}
    for field in descriptor(name).fields:
        drawn = [_value(field, random) for _ in range(random.randint(1, 3))]
        values[field.name] = drawn if field.is_repeated else drawn[0]
    example: bytes = wire_class(name)(**values).SerializeToString()
    return example


def _value(field: FieldDescriptor, random: Random) -> object:
    if field.message_type is not None:
        name = field.message_type.name
        return wire_class(name).FromString(_example(name, random))
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return "".join(random.choices("aé€😀\x00 9", k=random.randint(0, 6)))
        case FieldDescriptor.TYPE_BYTES:
            return random.randbytes(random.randint(0, 6))
        case FieldDescriptor.TYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.TYPE_UINT32:
            return random.getrandbits(random.randint(1, 32))
        case _:
            return random.getrandbits(random.randint(1, 63))
