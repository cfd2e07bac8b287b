"""Who hears what stands in the log: from one entry to what is in it for each shard. Pure.

| subject | heard by |
|---|---|
| `ORDER.journal.<actor>.<shard>` | whoever each fact of the record is for |
| `ORDER.created.<order_id>` | the order's shard |
| `ORDER.again.<actor>.<shard>` | that shard; the addressees of a fact that nobody could read before |
| `ORDER.dead.>` | nobody |
| anything else | an undertaker |

What nobody can read, or nobody reads, is set aside by its **undertaker**: the first shard that the entry holds nothing
else for, so that its facts are counted the same by a program that reads more of them; and never the shard whose journal
it stands in, as that refuses to recover over a record that it cannot read. So the same shard buries it whoever looks,
once, as it reads on from its cursor.
"""

from collections.abc import Collection, Sequence

import msgspec
import structlog

from messages.codec import FOREIGN_BYTES_MAX, DecodeError, decode, decode_strictly, message_class
from messages.generated.orders.v1 import OrderCreated
from messages.record import Envelope, Letter, RawRecord, RecordError, decode_letter, unframe
from messages.routing import Routes, shard_of
from runtime.desk_types import ORDER_ID
from runtime.letters import AGAIN, RECORD, WAKING, key_in
from runtime.log import Entry
from runtime.mailbox import Content, Replayed, Wake
from runtime.recall import INTAKE, JOURNALS, LETTERS, Address
from runtime.trace_context import checked

_JOURNALS, _INTAKE, _AGAIN, _LETTERS = (f"{one}." for one in (JOURNALS, INTAKE, AGAIN, LETTERS))

logger = structlog.get_logger("runtime.addressing")

Addressed = dict[Address, list[tuple[int, Content]]]
"""For each shard its facts in order, each with its place in the record."""


class Addressing:
    """Reads entries with the eyes of every shard at once."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._shards = [Address(a, n) for a, count in routes.shards.items() for n in range(count)]

    def of_record(self, entry: Entry, said: Sequence[Envelope] | None) -> Addressed:
        """An entry of a journal; `said` are its facts where they are known already."""
        addressed: Addressed = {}
        unreadable: list[Letter] = []
        try:
            facts = said if said is not None else RawRecord(entry.payload).facts
        except RecordError as error:
            # Its facts are unknown, so are their addressees. Its own shard refuses to recover over it.
            logger.exception("record_unreadable", subject=entry.subject, seq=entry.seq)
            undertaker, letter = self.burial_of(entry, str(error))
            return {undertaker: [(0, letter)]}
        for index, content in enumerate(facts):
            if isinstance(content, Letter):
                logger.error("fact_unreadable", seq=entry.seq, type=content.type)
                unreadable.append(_placed(content, entry))
                continue
            for actor, shard in self._routes.heard_by(content.fact):
                addressed.setdefault(Address(actor, shard), []).append((index, content))
        if unreadable:
            undertaker = self._undertaker(entry.subject, addressed)
            parked = addressed.setdefault(undertaker, [])
            parked += [(letter.index, letter) for letter in unreadable]
        return addressed

    def burial_of(self, entry: Entry, why: str) -> tuple[Address, Letter]:
        """Who sets aside a record that nobody can read, and by which letter."""
        letter = Letter(0, 0, RECORD, entry.payload, why, retryable=True)
        return self._undertaker(entry.subject), _placed(letter, entry)

    def of_other(self, entry: Entry) -> Addressed:
        """An entry that stands in no journal."""
        subject = entry.subject
        if subject.startswith(_INTAKE):
            order_id = subject.removeprefix(_INTAKE)
            address = Address("order", shard_of(order_id, self._routes.shards["order"]))
            return {address: [(0, read_intake(entry, order_id))]}
        if subject.startswith(_AGAIN):
            return self._of_replay(entry, subject.removeprefix(_AGAIN))
        if subject.startswith(_LETTERS):
            return {}
        reason = f"nobody reads this subject; orders come in by {INTAKE}.<order_id>"
        return self._park(entry, "", reason)

    def _of_replay(self, entry: Entry, named: str) -> Addressed:
        """A dead letter that is to be heard again."""
        try:
            return self._read_replay(decode_letter(unframe(entry.payload)), named)
        except (RecordError, DecodeError) as error:
            return self._park(entry, "DeadLetter", f"not to be replayed: {error}")

    def _read_replay(self, letter: Letter, named: str) -> Addressed:
        """What a replayed letter is about, for the shard that is named; for all whom it was for if none could read it.

        Raises:
            DecodeError: it is nothing that those could have heard.
        """
        named_here = [address for address in self._shards if str(address) == named]
        if letter.type in WAKING and named_here:
            return {named_here[0]: [(0, Wake(key_in(letter)))]}
        fact = decode(message_class(letter.type), letter.payload)
        heard_by = [Address(*one) for one in self._routes.heard_by(fact)]
        if not letter.subject.startswith(_JOURNALS):
            heard_by = [address for address in named_here if address in heard_by]
        if not heard_by or isinstance(fact, OrderCreated):
            raise DecodeError(f"{named[:128]} hears no such {letter.type} by this way")
        traceparent = checked(letter.traceparent)
        about = letter.correlation_id
        again = Replayed(fact, about, letter.seq, letter.index, traceparent=traceparent)
        return {address: [(0, again)] for address in heard_by}

    def _park(self, entry: Entry, kind: str, reason: str) -> Addressed:
        letter = Letter(0, 0, kind, entry.payload, reason)
        return {self._undertaker(entry.subject): [(0, _placed(letter, entry))]}

    def _undertaker(self, subject: str, busy: Collection[Address] = ()) -> Address:
        able = [address for address in self._shards if address.journal != subject]
        return next((address for address in able if address not in busy), able[0])


def read_intake(entry: Entry, order_id: str) -> Envelope | Letter:
    """The order in a message from the open way in, or a letter saying why it is none.

    The letter holds the beginning of what is too long for an order: the whole of it stands in the log at `seq`.
    """
    traceparent = checked(entry.headers.get("traceparent", ""))
    try:
        created = decode_strictly(OrderCreated, entry.payload)
    except DecodeError as error:
        reason = str(error)
    else:
        if created.order_id != order_id:
            reason = (
                f"the subject names order {order_id[:128]}, the body {created.order_id[:128]!r}"
            )
        elif not ORDER_ID.fullmatch(order_id):
            reason = "an order id has 1 to 128 of A-Z a-z 0-9 _ -"
        else:
            return Envelope(created, order_id, traceparent=traceparent)
    letter = Letter(0, 0, OrderCreated.__name__, entry.payload, reason, correlation_id=order_id)
    return _placed(letter, entry)


def _placed(letter: Letter, entry: Entry) -> Letter:
    """The letter with its place in the log, and with no more of its payload than a letter has room for."""
    payload = letter.payload[:FOREIGN_BYTES_MAX]
    return msgspec.structs.replace(letter, seq=entry.seq, subject=entry.subject, payload=payload)
