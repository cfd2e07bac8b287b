"""Dead letters, as they are stored."""

import pytest

from actors.actor import CallAnswered, CallOutcome, Due, Enquiry
from messages.codec import DecodeError
from messages.generated.orders.v1 import CancelAsked, StockCounted
from messages.record import Envelope, Letter, decode_letter
from runtime.letters import (
    DECISION,
    REPLAYED_AS,
    Decision,
    decision_in,
    key_in,
    letter_about,
    order_of,
    store_decision,
    store_letter,
    store_letters,
)
from runtime.log import BrokerLostError, Entry
from runtime.mailbox import Ask, Delivery
from runtime.memory import MemoryLog
from runtime.recall import Address

ORDER_1 = Address("order", 1)


def letter(seq: int = 0, index: int = 0, kind: str = "CancelAsked", reason: str = "why") -> Letter:
    return Letter(seq, index, kind, b"body", reason)


async def store(*letters: tuple[Letter, str]) -> MemoryLog:
    log = MemoryLog()
    for each, burial in letters:
        await store_letter(log, ORDER_1, each, burial)
    return log


async def test_a_letter_is_stored_whole_on_its_shards_subject_with_headers_for_people() -> None:
    stored = letter(7, 2)
    log = await store((stored, "i1/1.3.0"))
    (entry,) = log.store.entries
    assert entry.subject == "ORDER.dead.order.1"
    assert decode_letter(entry.payload) == stored
    assert entry.headers == {
        "Orders-Letter-Id": "order.1.7.2",
        "Orders-Type": "CancelAsked",
        "Orders-Reason": "why",
    }


async def test_where_one_letter_of_a_group_is_lost_the_group_is() -> None:
    log = MemoryLog()
    log.lose_answers()
    with pytest.raises(BrokerLostError):
        await store_letters(log, ORDER_1, [letter(7), letter(8), letter(9)], "i1/1.3")
    assert len(log.store.entries) == 3


async def test_two_letters_have_two_ids_and_the_same_one_again_has_the_same() -> None:
    log = await store(
        (letter(7, 2), "i1/1.3.0"),
        (letter(7, 2), "i1/2.1.0"),  # After a crash in between.
        (letter(7, 3), "i1/2.1.1"),
        (letter(), "i1/2.2.0"),
        (letter(), "i1/2.3.0"),
    )
    ids = [entry.headers["Orders-Letter-Id"] for entry in log.store.entries]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


async def test_whatever_a_reason_contains_becomes_a_header_that_the_log_takes() -> None:
    log = await store((letter(1, reason="caf\u00e9\r\nX: y" + "z" * 9_999, kind="T" * 999), ""))
    headers = log.store.entries[0].headers
    assert headers["Orders-Reason"].startswith("caf???X: y")
    assert len(headers["Orders-Reason"]) == 500
    assert len((await store((letter(reason=""), ""))).store.entries) == 1


def test_a_letter_says_where_its_fact_stands_and_whom_it_is_about() -> None:
    fact = CancelAsked(order_id="o1")
    delivered = Delivery(7, 2, 0, True, Envelope(fact, "o1"))
    about = letter_about(delivered, fact, "00-trace", "why")
    assert (about.seq, about.index, about.correlation_id) == (7, 2, "o1")
    assert about.payload == bytes(fact)
    assert letter_about(Ask(fact), fact, "", "why").seq == 0
    answered = CallAnswered("o1", Enquiry("o1"), CallOutcome.UNKNOWN)
    assert key_in(letter_about(answered, answered, "", "why")) == "o1"


@pytest.mark.parametrize("payload", [b"", b"{}", b"Due(key='o1')", b"\xff", b'{"key": 1}'])
def test_a_letter_about_a_deadline_that_does_not_say_whose_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="no Due"):
        key_in(Letter(0, 0, "Due", payload, "why"))


async def test_a_decision_stands_beside_the_letter_and_is_read_back_as_it_was_made() -> None:
    log = await store((letter(7, 2), "i1/1.3.0"))
    made = Decision("order.1.7.2", "replayed", "me@here", "fixed", 12)
    await store_decision(log, ORDER_1.letters, made)
    stored, decided = log.store.entries
    assert decided.subject == stored.subject
    assert decision_in(stored) is None
    assert decision_in(decided) == made


@pytest.mark.parametrize("seq", ["", "x", "-1", "٣"])
def test_a_decision_that_a_stranger_has_made_up_is_read_as_far_as_it_goes(seq: str) -> None:
    entry = Entry(1, ORDER_1.letters, b"", 0, {DECISION: "dropped", REPLAYED_AS: seq})
    assert decision_in(entry) == Decision("", "dropped", "")


def test_every_kind_of_news_names_its_order_if_it_has_one() -> None:
    assert order_of(CancelAsked(order_id="o1")) == "o1"
    assert order_of(Due("order:o1")) == "o1"
    assert order_of(StockCounted(sku="a")) == ""
