"""What one incarnation of a shard leaves to the next."""

from actors.actor import Due
from messages.generated.orders.v1 import CancelAsked, StockCounted
from messages.record import Cursor, Envelope
from runtime.mailbox import Ask, Delivery
from runtime.past import ATTEMPTS_MAX, PAUSE_MAX_S, PAUSE_MIN_S, REMEMBERED_MAX, Past


def delivery(seq: int, index: int = 0) -> Delivery:
    return Delivery(seq, index, index, True, Envelope(CancelAsked("o"), "o"))


def test_a_fact_is_spent_after_its_attempts_and_forgotten_once_it_is_buried() -> None:
    past = Past()
    for number in range(ATTEMPTS_MAX):
        assert not past.is_spent(delivery(5))
        past.note(delivery(5), ValueError(f"no. {number}"))
    assert past.is_spent(delivery(5))
    assert not past.is_spent(delivery(5, index=1))
    assert not past.is_spent(delivery(6))
    assert past.reasons(delivery(5)) == (
        3,
        "ValueError: no. 0; ValueError: no. 1; ValueError: no. 2",
    )
    assert past.is_spent(delivery(5))
    past.bury(delivery(5))
    assert not past.is_spent(delivery(5))


def test_what_is_buried_again_and_again_is_looked_at_ever_more_seldom() -> None:
    past = Past()
    pauses_s = [past.bury(Due("o1")) for _ in range(20)]
    assert pauses_s[:3] == [PAUSE_MIN_S, 2 * PAUSE_MIN_S, 4 * PAUSE_MIN_S]
    assert pauses_s[-1] == PAUSE_MAX_S
    assert past.bury(Due("o2")) == PAUSE_MIN_S


def test_after_a_failure_facts_are_taken_one_by_one_until_the_bad_one_is_passed() -> None:
    past = Past()
    assert not past.is_careful(Cursor(9))
    past.note(delivery(5), ValueError())
    assert past.is_careful(Cursor(4))
    assert past.is_careful(Cursor(4, 3))
    assert not past.is_careful(Cursor(5))


def test_a_group_that_failed_as_a_whole_makes_careful_and_blames_one_only_if_it_was_alone() -> None:
    past = Past()
    for _ in range(ATTEMPTS_MAX):
        past.note_group([delivery(4), delivery(7), Due("o1")], ValueError())
    assert past.is_careful(Cursor(6))
    assert not past.is_spent(delivery(4))
    for _ in range(ATTEMPTS_MAX):
        past.note_group([delivery(7)], ValueError())
    assert past.is_spent(delivery(7))


def test_an_ask_is_known_again_when_it_is_repeated_and_not_taken_for_another() -> None:
    past = Past()
    for _ in range(ATTEMPTS_MAX):
        past.note(Ask(CancelAsked(order_id="bad")), ValueError())
        past.note(Ask(StockCounted(sku="bad", on_hand=1)), ValueError())
        past.note(Due("bad"), ValueError())
    assert past.is_spent(Ask(CancelAsked(order_id="bad")))
    assert not past.is_spent(Ask(CancelAsked(order_id="good")))
    assert past.is_spent(Ask(StockCounted(sku="bad", on_hand=1)))
    assert not past.is_spent(Ask(StockCounted(sku="good", on_hand=1)))
    assert past.is_spent(Due("bad"))
    assert not past.is_spent(Due("good"))


def test_only_so_many_suspects_are_remembered() -> None:
    past = Past()
    for number in range(2 * REMEMBERED_MAX):
        past.note(Ask(CancelAsked(order_id=f"o{number}")), ValueError())
    assert len(past._failures) == REMEMBERED_MAX


def test_an_exception_that_cannot_speak_is_noted_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    past = Past()
    past.note(delivery(1), MuteError())
    past.note(delivery(1), ValueError("x" * 9_999))
    attempts, reasons = past.reasons(delivery(1))
    assert attempts == 2
    assert reasons.startswith("MuteError: (no text: RuntimeError); ValueError: xxx")
    assert len(reasons) < 600
