"""Poison: messages that broken producers and adversaries send, and what has to become of each of them.

That is known beforehand: the log says which shard sets a message aside, if any does. So letters can be counted: one for
each message that is no order, with its reason, and none for anything else.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from messages.codec import encode
from messages.generated.orders.v1 import OrderCreated, OrderItem
from messages.record import Letter
from messages.routing import Routes
from runtime.addressing import Addressing
from runtime.dead_letters import read_letters
from runtime.letters import AGAIN
from runtime.log import Entry, Log
from runtime.reading import read_to_end
from runtime.recall import INTAKE, STREAM_PREFIX

MISSPELT = f"{STREAM_PREFIX}.craeted"

Poison = tuple[str, bytes, Mapping[str, str]]  # Subject, payload, headers.


def poison(random: Random, order_id: str, sku: str) -> Poison:
    """One message of the kinds that broken producers and adversaries send."""
    sound = _order(order_id, sku, random)
    match random.randrange(20):
        case 0:
            return f"{INTAKE}.{order_id}-other", sound, {}
        case 1:
            return f"{INTAKE}.{order_id}.more", sound, {}
        case 2:
            return INTAKE, sound, {}
        case 3:
            return f"{MISSPELT}.{order_id}", sound, {}
        case 4:
            return f"{INTAKE}.{order_id}", random.randbytes(random.randint(0, 300)), {}
        case 5:
            return f"{INTAKE}.{order_id}", b"\x1a\x00" * random.randint(500, 32_000), {}
        case 6:
            return f"{AGAIN}.order.{random.randrange(6)}", mutated(sound, random), {}
        case 7:
            return f"{INTAKE}.{'x' * 300}{order_id}", sound, {}
        case 8:
            return f"{INTAKE}.{order_id}", mutated(sound, random), _nonsense(random)
        case _:
            return f"{INTAKE}.{order_id}", mutated(sound, random), {}


def mutated(sound: bytes, random: Random) -> bytes:
    """One to four changes of the kinds that wires and adversaries make."""
    payload = bytearray(sound)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(payload) + 1)
        match random.randrange(6):
            case 0 if at < len(payload):
                payload[at] ^= 1 << random.randrange(8)
            case 1:
                del payload[at : at + random.randint(1, 8)]
            case 2:
                payload[at:at] = random.randbytes(random.randint(1, 8))
            case 3:
                payload[at:at] = payload[at : at + random.randint(1, 16)]
            case 4:
                payload[at : at + 1] = random.choice([b"\xff" * 10, b"\x80", b"\x00", b"\x7f"])
            case _:
                del payload[at:]
    return bytes(payload)


def _order(order_id: str, sku: str, random: Random) -> bytes:
    quantity, price = random.randint(1, 3), random.randint(1, 999)
    created = OrderCreated(
        order_id=order_id,
        customer_id="stranger",
        items=[OrderItem(sku=sku, quantity=quantity, unit_price_minor=price)],
        currency="GBP",
        total_minor=quantity * price,
        payment_token="tok_ok",  # noqa: S106  # A card of the simulator's.
    )
    return encode(created)


def _nonsense(random: Random) -> Mapping[str, str]:
    text = "".join(chr(random.randint(32, 126)) for _ in range(random.randint(0, 200)))
    return {
        "traceparent": random.choice(
            [text, "00-0-0-00", "00-" + "a" * 32 + "-" + "0" * 16 + "-01"]
        ),
        "tracestate": text,
        "Orders-Letter-Id": text,
        "Orders-Replay-Of": text,
        "Content-Type": text,
    }


# --- what has to become of it ---


async def find_unburied(log: Log, routes: Routes) -> tuple[list[str], int]:
    """Each message that was not set aside as it has to be, in words; and how many were set aside."""
    addressing, wanted, found = Addressing(routes), Counter[tuple[str, int]](), []

    async def take(entries: Sequence[Entry]) -> None:
        for entry in entries:
            for address, contents in addressing.of_other(entry).items():
                wanted.update(
                    (str(address), entry.seq) for _, one in contents if isinstance(one, Letter)
                )

    await read_to_end(log, [f"{INTAKE}.>", INTAKE, f"{AGAIN}.>", f"{MISSPELT}.>"], take)
    buried = Counter[tuple[str, int]]()
    for letter in (await read_letters(log)).values():
        if not letter.letter.reason:
            found.append(f"{letter.id} has no reason")
        if letter.letter.attempts <= 1:  # Else an order that could be read, and not be borne.
            buried[(letter.shard, letter.letter.seq)] += 1
    for (shard, seq), times in wanted.items():
        if buried[(shard, seq)] != times:
            found.append(
                f"{shard} has {buried[(shard, seq)]} letters about message {seq}, not {times}"
            )
    return found, wanted.total()
