"""Facts to bytes and back: betterproto classes on the outside, protobuf's own runtime for the bytes.

betterproto's pure-Python decoder accepts truncated and mistyped input (a string cut short is a shorter string, a varint
in a string field is an int) and costs a hundred times more. So its classes are what the code sees, and the bytes of the
same `.proto` files are made by the protobuf runtime from the committed descriptors. The two agree byte for byte, except
that betterproto loses empty elements of lists; `tests/messages/test_codec.py` holds them to it. Fields that only a
newer sender knows are passed on as they came. Bytes from strangers go through `decode_strictly`.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import betterproto
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from messages.generated.orders import v1
from messages.wire import WireError, check_wire

PACKAGE = "orders.v1"
FOREIGN_BYTES_MAX = (
    128 * 1024
)  # An order of 1,000 lines with the longest SKUs is 90 KB; a usual one takes 150 bytes.

M = TypeVar("M", bound=betterproto.Message)


class DecodeError(ValueError):
    """These bytes are not that message."""


class EncodeError(ValueError):
    """This message holds a value that its field cannot carry."""


def _load_descriptors() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    committed = (Path(__file__).parent / "generated" / "descriptors.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(committed).file:
        pool.Add(file)
    return pool


_POOL = _load_descriptors()


def descriptor(name: str) -> Descriptor:
    """The descriptor of one message of `orders.v1`."""
    return _POOL.FindMessageTypeByName(f"{PACKAGE}.{name}")


@cache
def wire_class(name: str) -> Any:
    """The protobuf runtime's class for one message of `orders.v1`."""
    return message_factory.GetMessageClass(descriptor(name))


def message_class(name: str) -> type[betterproto.Message]:
    """The betterproto class of that name.

    Raises:
        DecodeError: `orders.v1` has no such message.
    """
    found = getattr(v1, name, None)
    if not (isinstance(found, type) and issubclass(found, betterproto.Message)):
        raise DecodeError(f"no message is called {name!r} in {PACKAGE}")
    return found


def encode(message: betterproto.Message) -> bytes:
    """The protobuf bytes of a message.

    Raises:
        EncodeError: a field holds a value of the wrong type or out of its range.
    """
    to_wire, _ = _converters(type(message))
    try:
        encoded: bytes = to_wire(message).SerializeToString(deterministic=True)
    except (TypeError, ValueError) as error:
        raise EncodeError(f"{type(message).__name__}: {error}") from error
    return encoded


def decode(kind: type[M], payload: bytes) -> M:
    """The message in bytes that we wrote ourselves and whose checksum held.

    Raises:
        DecodeError: they are not such a message.
    """
    _, from_wire = _converters(kind)
    try:
        parsed = wire_class(kind.__name__).FromString(payload)
    except ProtobufDecodeError as error:
        raise DecodeError(f"not a {kind.__name__}: {error}") from error
    message: M = from_wire(parsed)
    return message


def decode_strictly(kind: type[M], payload: bytes) -> M:
    """The message in bytes from a stranger: what any protobuf decoder might read in two ways is refused.

    Raises:
        DecodeError: too long, truncated, mistyped, out of range, a field twice, no UTF-8, or nothing at all.
    """
    if not payload:
        raise DecodeError(f"an empty payload is not a {kind.__name__}")
    if len(payload) > FOREIGN_BYTES_MAX:
        raise DecodeError(
            f"{len(payload)} bytes; a {kind.__name__} has at most {FOREIGN_BYTES_MAX}"
        )
    try:
        check_wire(descriptor(kind.__name__), payload)
    except WireError as error:
        raise DecodeError(f"not a {kind.__name__}: {error}") from error
    return decode(kind, payload)


@cache
def _converters(
    kind: type[betterproto.Message],
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A pair of functions between a betterproto class and its twin in the protobuf runtime."""
    twin = wire_class(kind.__name__)
    plain: list[str] = []
    lists: list[str] = []
    nested: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = []
    for field in twin.DESCRIPTOR.fields:
        if field.message_type is not None:
            nested.append((field.name, *_converters(message_class(field.message_type.name))))
        else:
            (lists if field.is_repeated else plain).append(field.name)
    assert all(twin.DESCRIPTOR.fields_by_name[name].is_repeated for name, _, _ in nested)

    def to_wire(message: Any) -> Any:
        values = message.__dict__
        made = twin(**{name: values[name] for name in plain})
        for name in lists:
            getattr(made, name).extend(values[name])
        for name, inner_to_wire, _ in nested:
            getattr(made, name).extend([inner_to_wire(inner) for inner in values[name]])
        if values["_unknown_fields"]:
            made.MergeFromString(values["_unknown_fields"])
        return made

    def from_wire(parsed: Any) -> Any:
        # Past the dataclass constructor, which betterproto makes slow; these three are all that it would add.
        message = kind.__new__(kind)
        values = message.__dict__
        unknown = _unknown_bytes(parsed) if len(UnknownFieldSet(parsed)) else b""
        values.update(_serialized_on_wire=True, _unknown_fields=unknown, _group_map={})
        for name in plain:
            values[name] = getattr(parsed, name)
        for name in lists:
            values[name] = list(getattr(parsed, name))
        for name, _, inner_from_wire in nested:
            values[name] = [inner_from_wire(inner) for inner in getattr(parsed, name)]
        return message

    return to_wire, from_wire


def _unknown_bytes(parsed: Any) -> bytes:
    """What is left of a message without the fields that we know."""
    rest = type(parsed)()
    rest.CopyFrom(parsed)
    for field in rest.DESCRIPTOR.fields:
        rest.ClearField(field.name)
    unknown: bytes = rest.SerializeToString()
    return unknown


def fact_names() -> Iterator[str]:
    """The name of every message in `orders.v1`, in the order of the files."""
    for name, found in vars(v1).items():
        if isinstance(found, type) and issubclass(found, betterproto.Message):
            yield name
