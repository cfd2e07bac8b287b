"""Addressing: who hears an entry of the log, and who sets aside what nobody can read."""

from collections.abc import Sequence

import msgspec
import pytest
from betterproto import Message

from actors.actor import Due
from messages.codec import FOREIGN_BYTES_MAX, wire_class
from messages.generated.orders.v1 import (
    CancelAsked,
    OrderCancelled,
    OrderCreated,
    PaymentTaken,
    StockCounted,
)
from messages.record import (
    Cursor,
    Envelope,
    Letter,
    Record,
    encode_letter,
    encode_record,
    frame,
    unframe,
)
from messages.routing import Routes, by_order, by_sku, by_skus
from runtime.addressing import Addressing
from runtime.letters import letter_about
from runtime.log import Entry
from runtime.mailbox import Ask, Replayed, Wake
from runtime.recall import Address

ORDER, PAYMENT = Address("order", 0), Address("payment", 0)
INVENTORY_0, INVENTORY_1 = Address("inventory", 0), Address("inventory", 1)
ROUTES = Routes(
    {
        "order": {PaymentTaken: by_order, OrderCreated: by_order, CancelAsked: by_order},
        "inventory": {OrderCancelled: by_skus, StockCounted: by_sku},
        "payment": {OrderCancelled: by_order},
    },
    {"order": 1, "inventory": 2, "payment": 1},
)
CANCELLED = OrderCancelled(order_id="o1", skus=["a"])  # For inventory.1 and payment.0.


@pytest.fixture
def addressing() -> Addressing:
    return Addressing(ROUTES)


def entry(subject: str, payload: bytes, seq: int = 7) -> Entry:
    return Entry(seq, subject, payload, 0)


def recorded(facts: Sequence[Message], subject: str = "ORDER.journal.payment.0") -> Entry:
    envelopes = [Envelope(fact, "o1") for fact in facts]
    return entry(subject, encode_record(Record("a/1", 1, Cursor(), (), envelopes)))


def future(*facts: Message) -> Entry:
    """A record of these facts, with one that only a newer version knows before and after them."""
    unknown = PaymentTaken("o1")
    made = wire_class("Record").FromString(unframe(recorded([unknown, *facts, unknown]).payload))
    made.facts[0].type = made.facts[-1].type = "FromTheFuture"
    return entry("ORDER.journal.payment.0", frame(made.SerializeToString()))


def test_a_fact_that_nobody_can_read_is_set_aside_by_a_shard_that_hears_nothing_else_in_it(
    addressing: Addressing,
) -> None:
    """So that what the others count of this record does not change with the version that reads it."""
    addressed = addressing.of_record(future(PaymentTaken("o1")), None)
    assert [index for index, _ in addressed[ORDER]] == [1]
    parked = addressed[INVENTORY_0]
    assert [index for index, _ in parked] == [0, 2]
    letters = [content for _, content in parked if isinstance(content, Letter)]
    assert [(one.type, one.seq, one.index) for one in letters] == [
        ("FromTheFuture", 7, 0),
        ("FromTheFuture", 7, 2),
    ]
    assert all(one.retryable and one.subject == "ORDER.journal.payment.0" for one in letters)
    assert set(addressed) == {ORDER, INVENTORY_0}


def test_where_all_hear_something_else_of_a_record_one_of_them_sets_aside_the_rest_at_the_end(
    addressing: Addressing,
) -> None:
    both = OrderCancelled(order_id="o1", skus=["a", "b", "c", "d"])
    addressed = addressing.of_record(future(PaymentTaken("o1"), both), None)
    assert [index for index, _ in addressed[ORDER]] == [1, 0, 3]


@pytest.mark.parametrize("journal", ["order.0", "payment.0", "order.99", "nobody"])
def test_a_record_that_nobody_can_read_is_set_aside_by_another_shard_than_its_own(
    addressing: Addressing, journal: str
) -> None:
    """Its own refuses to recover over it, and buries nothing."""
    subject = f"ORDER.journal.{journal}"
    ((undertaker, [(_, letter)]),) = addressing.of_record(entry(subject, b"x" * 99), None).items()
    assert undertaker == (INVENTORY_0 if journal == "order.0" else ORDER)
    assert isinstance(letter, Letter)
    assert (letter.type, letter.seq, letter.subject) == ("Record", 7, subject)
    assert letter.retryable


def test_a_letter_holds_no_more_of_a_message_than_it_has_room_for(addressing: Addressing) -> None:
    large = entry("ORDER.journal.payment.0", b"x" * 10 * FOREIGN_BYTES_MAX)
    ((_, letter),) = addressing.of_record(large, None)[ORDER]
    assert isinstance(letter, Letter)
    assert len(letter.payload) == FOREIGN_BYTES_MAX


# --- again


def again(letter: Letter, named: str = "order.0") -> Entry:
    return entry(f"ORDER.again.{named}", frame(encode_letter(letter)))


def about(fact: Message, **changes: object) -> Letter:
    return msgspec.structs.replace(letter_about(Ask(fact), fact, "", "why"), **changes)


def test_a_replayed_fact_is_heard_by_the_one_shard_that_had_buried_it(
    addressing: Addressing,
) -> None:
    letter = about(CANCELLED, seq=3, index=1)
    addressed = addressing.of_other(again(letter, "payment.0"))
    assert addressed == {PAYMENT: [(0, Replayed(CANCELLED, "o1", 3, 1))]}


def test_a_replayed_fact_that_nobody_could_read_is_heard_by_all_whom_it_is_for(
    addressing: Addressing,
) -> None:
    letter = about(CANCELLED, subject="ORDER.journal.order.0")
    addressed = addressing.of_other(again(letter, "order.0"))
    assert set(addressed) == {INVENTORY_1, PAYMENT}


def test_a_replayed_deadline_or_answer_lets_its_shard_look_at_the_key_again(
    addressing: Addressing,
) -> None:
    due = Due("order:o1")
    letter = Letter(0, 0, "Due", msgspec.json.encode(due), "why")
    addressed = addressing.of_other(again(letter, "inventory.1"))
    assert addressed == {INVENTORY_1: [(0, Wake("order:o1"))]}


DUE = Letter(0, 0, "Due", b'{"key": "o1"}', "")


@pytest.mark.parametrize(
    ("payload", "named", "why"),
    [
        (b"", "order.0", "start like a record"),
        (encode_letter(DUE), "order.0", "start like a record"),
        (frame(b"\xff"), "order.0", "no dead letter"),
        (frame(encode_letter(about(CANCELLED))), "order.0", "hears no such OrderCancelled"),
        (frame(encode_letter(about(CANCELLED))), "inventory.0", "hears no such OrderCancelled"),
        (frame(encode_letter(about(CANCELLED))), "payment.1", "hears no such"),
        (frame(encode_letter(about(CANCELLED))), "payment.00", "hears no such"),
        (frame(encode_letter(about(OrderCreated("o1")))), "order.0", "hears no such OrderCreated"),
        (frame(encode_letter(Letter(0, 0, "Nothing", b"", ""))), "order.0", "no message is called"),
        (frame(encode_letter(Letter(0, 0, "PaymentTaken", b"\xff", ""))), "order.0", "not a Pay"),
        (frame(encode_letter(Letter(0, 0, "Due", b"order:o1", ""))), "order.0", "no Due"),
        (frame(encode_letter(DUE)), "order.7", "no message is called 'Due'"),
        (frame(encode_letter(DUE)), "a.b.c", "no message is called 'Due'"),
    ],
)
def test_what_is_no_letter_to_be_replayed_there_is_set_aside_once(
    addressing: Addressing, payload: bytes, named: str, why: str
) -> None:
    addressed = addressing.of_other(entry(f"ORDER.again.{named}", payload))
    ((_, letter),) = addressed.pop(ORDER)
    assert addressed == {}
    assert isinstance(letter, Letter)
    assert letter.reason.startswith("not to be replayed: ")
    assert why in letter.reason
