"""Dead letters: facts set aside with their reason, stored before the record that moves past them.

A crash in between stores a letter twice under the same id; whoever lists them shows it once.
"""

from betterproto import Message

from actors.actor import Heard
from messages.codec import encode
from messages.record import Letter, encode_letter
from runtime.log import Log
from runtime.mailbox import Delivery, Item
from runtime.recall import Address


def letter_about(item: Item, heard: Heard, traceparent: str, reason: str) -> Letter:
    """A letter for something that was heard. What was not in the log has `seq` 0."""
    delivered = item if isinstance(item, Delivery) else None
    return Letter(
        seq=delivered.seq if delivered else 0,
        index=delivered.index if delivered else 0,
        type=type(heard).__name__,
        payload=encode(heard) if isinstance(heard, Message) else repr(heard).encode(),
        reason=reason,
        correlation_id=order_of(heard),
        traceparent=traceparent,
    )


async def store_letter(log: Log, address: Address, letter: Letter, burial: str) -> None:
    """Append one letter; its id is the position of what it is about, or else of its `burial`."""
    place = f"{letter.seq}.{letter.index}" if letter.seq else burial
    headers = {
        "Orders-Letter-Id": f"{address}.{place}"[:128],
        "Orders-Type": letter.type[:100],
        "Orders-Reason": _printable(letter.reason),
    }
    await log.append(address.letters, encode_letter(letter), headers=headers)


def order_of(heard: Heard) -> str:
    """The order that something is about; empty where it is about none (a count of stock)."""
    about: str = getattr(heard, "order_id", "") or getattr(heard, "key", "")
    return about.removeprefix("order:")


def _printable(text: str) -> str:
    """One line of ASCII, as a header allows."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:500]) or "?"
