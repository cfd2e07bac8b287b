"""A strict look at protobuf bytes before anything is decoded: one meaning, or refused.

Decoders are lenient by design: they wrap integers, take the last of two values, skip groups. For an order that a
stranger sent, "the last quantity wins" is a way to be cheated. The rules here are protobuf's encoding specification
without that leniency; unknown fields are allowed, since a newer sender may have them.
"""

from google.protobuf.descriptor import Descriptor, FieldDescriptor

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
DEPTH_MAX = 20
REPEATED_MAX = 1000  # Of one field; as many as the lines that a shop may allow an order to have.
FIELDS_MAX = 5000  # In all, also nested and unknown ones. 1,000 lines have 4,006; 5 ms of reading.

_F = FieldDescriptor
_WIRE_TYPE = {
    _F.TYPE_INT64: VARINT,
    _F.TYPE_UINT64: VARINT,
    _F.TYPE_INT32: VARINT,
    _F.TYPE_UINT32: VARINT,
    _F.TYPE_BOOL: VARINT,
    _F.TYPE_STRING: LENGTH,
    _F.TYPE_BYTES: LENGTH,
    _F.TYPE_MESSAGE: LENGTH,
}
_VARINT_MAX = {
    # A negative int is ten bytes long; nothing we count is negative, so it is out of range here.
    _F.TYPE_INT64: 2**63 - 1,
    _F.TYPE_UINT64: 2**64 - 1,
    _F.TYPE_INT32: 2**31 - 1,
    _F.TYPE_UINT32: 2**32 - 1,
    _F.TYPE_BOOL: 1,
}


class WireError(ValueError):
    """What is wrong with the bytes, and where."""


def check_wire(descriptor: Descriptor, payload: bytes) -> None:
    """Refuse bytes that are not exactly one reading of a message.

    Raises:
        WireError: names the field or the offset at fault.
    """
    _check_message(descriptor, payload, depth=0, fields_left=FIELDS_MAX)


def _check_message(descriptor: Descriptor, payload: bytes, depth: int, fields_left: int) -> int:
    """Check one message, and return how many more fields the whole may have."""
    if depth > DEPTH_MAX:
        raise WireError(f"nested deeper than {DEPTH_MAX}")
    seen: dict[int, int] = {}
    at, end = 0, len(payload)
    while at < end:
        fields_left -= 1
        if fields_left < 0:
            raise WireError(f"more than {FIELDS_MAX} fields")
        tag, at = _varint(payload, at, 2**32 - 1)
        number, wire_type = tag >> 3, tag & 7
        field = descriptor.fields_by_number.get(number)
        where = f"field {number} ({field.name})" if field else f"field {number}"
        if number == 0:
            raise WireError("field number 0")
        start, at = _skip(payload, at, wire_type, where)
        if field is None:
            continue
        seen[number] = seen.get(number, 0) + 1
        if seen[number] > (REPEATED_MAX if field.is_repeated else 1):
            raise WireError(f"{where} stands there {seen[number]} times")
        if wire_type != _WIRE_TYPE.get(field.type):
            raise WireError(f"{where} has wire type {wire_type}")
        value = payload[start:at]
        if field.type == _F.TYPE_MESSAGE:
            fields_left = _check_message(field.message_type, value, depth + 1, fields_left)
        else:
            _check_scalar(field, value, where)
    return fields_left


def _check_scalar(field: FieldDescriptor, value: bytes, where: str) -> None:
    if field.type in _VARINT_MAX:
        number, _ = _varint(value, 0, 2**64 - 1)
        if number > _VARINT_MAX[field.type]:
            raise WireError(f"{where} is out of range")
    elif field.type == _F.TYPE_STRING:
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise WireError(f"{where} is not UTF-8") from error


def _skip(payload: bytes, at: int, wire_type: int, where: str) -> tuple[int, int]:
    """Where the value's own bytes start and end."""
    start = at
    match wire_type:
        case 0:
            _, end = _varint(payload, at, 2**64 - 1)
        case 1:
            end = at + 8
        case 2:
            length, start = _varint(payload, at, 2**31 - 1)
            end = start + length
        case 5:
            end = at + 4
        case _:
            raise WireError(f"{where} has wire type {wire_type}")
    if end > len(payload):
        raise WireError(f"{where} ends after the message does")
    return start, end


def _varint(payload: bytes, at: int, value_max: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(at, min(at + 10, len(payload))):
        byte = payload[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > value_max:
                raise WireError(f"a number is out of range at byte {at}")
            return value, index + 1
        shift += 7
    raise WireError(f"a number does not end at byte {at}")
