"""What one reply of the payment gateway proves, as tables."""

import json
from typing import Any

import pytest

from actors.actor import CallOutcome, Charge, Enquiry, Refund
from runtime.gateway_contract import (
    SEEN_CHARS_MAX,
    Rejected,
    Reply,
    Unclear,
    Verdict,
    charge_request,
    enquiry_request,
    read_charge,
    read_charges,
    read_refund,
    refund_request,
)

CHARGE = Charge(key="o1:charge", reference="o1", amount_minor=1530, currency="GBP", token="tok_ok")
REFUND = Refund(key="o1:refund", reference="o1", charge_id="ch_1", amount_minor=1530)
ENQUIRY = Enquiry("o1")
CAPTURE = {"id": "ch_1", "status": "captured"}
WHOLE = CAPTURE | {"reference": "o1", "amount_minor": 1530, "currency": "GBP"}
CAPTURED = Verdict(CallOutcome.CAPTURED, "ch_1")
NOT_CHARGED = Verdict(CallOutcome.NOT_CHARGED, "")

UNREADABLE = [b"", b"<html>", b"null", b"[]", b"\xff\xfe", b'{"id":', b'{"x":' + b"[" * 60_000]


def reply(status: int, body: Any = b"") -> Reply:
    return Reply(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_requests_say_what_the_contract_says() -> None:
    charge, refund, enquiry = (
        charge_request(CHARGE),
        refund_request(REFUND),
        enquiry_request(CHARGE),
    )

    assert (charge.method, charge.path, charge.key) == ("POST", "/charges", "o1:charge")
    assert json.loads(charge.body) == {
        "reference": "o1",
        "amount_minor": 1530,
        "currency": "GBP",
        "token": "tok_ok",
    }
    assert (refund.method, refund.path, refund.key) == ("POST", "/refunds", "o1:refund")
    assert json.loads(refund.body) == {"charge_id": "ch_1", "amount_minor": 1530}
    assert (enquiry.method, enquiry.path, enquiry.reference) == ("GET", "/charges", "o1")
    assert enquiry == enquiry_request(ENQUIRY)


@pytest.mark.parametrize("body", [CAPTURE, WHOLE, WHOLE | {"more": [1]}])
def test_a_capture_of_what_was_asked_for_is_final(body: object) -> None:
    assert read_charge(CHARGE, reply(201, body)) == CAPTURED


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (WHOLE | {"amount_minor": 1}, "amount_minor 1 instead of 1530"),
        (WHOLE | {"currency": "EUR"}, "currency 'EUR' instead of 'GBP'"),
        (WHOLE | {"reference": "o2"}, "reference 'o2' instead of 'o1'"),
        (WHOLE | {"status": "pending"}, "is 'pending'"),
        (WHOLE | {"amount_minor": 1530.0}, "unreadable"),
        (WHOLE | {"id": ""}, "unreadable"),
        ({"id": "ch_1"}, "unreadable"),
    ],
)
def test_a_capture_of_something_else_proves_nothing(body: object, seen: str) -> None:
    reading = read_charge(CHARGE, reply(201, body))

    assert isinstance(reading, Unclear)
    assert seen in reading.seen


def test_a_402_with_a_code_is_final() -> None:
    refused = read_charge(CHARGE, reply(402, {"code": "card_declined"}))

    assert refused == Verdict(CallOutcome.DECLINED, "card_declined")


@pytest.mark.parametrize("status", [201, 402])
@pytest.mark.parametrize("body", UNREADABLE)
def test_an_unreadable_charge_reply_proves_nothing(status: int, body: bytes) -> None:
    assert isinstance(read_charge(CHARGE, reply(status, body)), Unclear)


@pytest.mark.parametrize("status", [200, 202, 204, 302, 408, 409, 425, 429, 500, 502, 503, 599])
def test_a_status_without_a_meaning_proves_nothing(status: int) -> None:
    assert isinstance(read_charge(CHARGE, reply(status, CAPTURE)), Unclear)
    assert isinstance(read_refund(REFUND, reply(status, CAPTURE)), Unclear)
    if status != 200:
        assert isinstance(read_charges(ENQUIRY, reply(status, {"charges": []})), Unclear)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_body_at_fault_is_rejected_and_keeps_its_reason(status: int) -> None:
    reading = read_charge(CHARGE, reply(status, {"code": "bad_currency"}))

    assert reading == Rejected(f"{status} bad_currency", f"rejected_{status}")


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_provider_without_enquiries_says_so_and_decides_nothing(status: int) -> None:
    reading = read_charges(ENQUIRY, reply(status))

    assert reading == Rejected(f"{status} it cannot be asked", f"rejected_{status}")


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410])
def test_a_wrong_configuration_decides_nothing_about_an_order(status: int) -> None:
    readings = [read_charge(CHARGE, reply(status)), read_refund(REFUND, reply(status))]
    if status not in (404, 405):
        readings.append(read_charges(ENQUIRY, reply(status)))

    for reading in readings:
        assert isinstance(reading, Verdict)
        assert reading.outcome is CallOutcome.UNKNOWN
        assert str(status) in reading.detail
        assert "PAYMENT_GATEWAY_URL" in reading.detail


@pytest.mark.parametrize(
    ("charges", "verdict"),
    [
        ([], NOT_CHARGED),
        ([{"id": "ch_1"}], CAPTURED),
        ([CAPTURE], CAPTURED),
        ([WHOLE], CAPTURED),
        ([WHOLE | {"id": "ch_0", "reference": "o0"}, WHOLE], CAPTURED),
        ([WHOLE | {"reference": "o2"}], NOT_CHARGED),
        ([WHOLE | {"status": "declined"}, WHOLE | {"status": "failed"}], NOT_CHARGED),
        ([WHOLE | {"id": "ch_0", "status": "declined"}, WHOLE], CAPTURED),
    ],
)
@pytest.mark.parametrize("call", [CHARGE, ENQUIRY])
def test_asked_by_reference_one_capture_counts_and_none_is_none(
    call: Charge | Enquiry, charges: list[object], verdict: Verdict
) -> None:
    assert read_charges(call, reply(200, {"charges": charges})) == verdict


@pytest.mark.parametrize(
    ("charges", "seen"),
    [
        ([WHOLE, WHOLE | {"id": "ch_2"}], "2 charges under one reference: ch_1, ch_2"),
        ([WHOLE | {"status": "refunded"}], "'refunded'"),
        ([WHOLE | {"amount_minor": 1}], "amount_minor 1"),
        ([WHOLE | {"currency": "EUR"}], "currency 'EUR'"),
    ],
)
def test_charges_that_do_not_add_up_are_left_to_a_person(charges: list[object], seen: str) -> None:
    reading = read_charges(CHARGE, reply(200, {"charges": charges}))

    assert isinstance(reading, Verdict)
    assert reading.outcome is CallOutcome.UNKNOWN
    assert seen in reading.detail


@pytest.mark.parametrize("body", [*UNREADABLE, b"{}", b'{"charges": [{}]}', b'{"charges": {}}'])
def test_an_unreadable_list_is_not_an_empty_one(body: bytes) -> None:
    assert isinstance(read_charges(ENQUIRY, reply(200, body)), Unclear)


@pytest.mark.parametrize(
    ("body", "refund_id"),
    [(b"", ""), ({}, ""), ({"id": "re_1"}, "re_1"), (WHOLE | {"id": "re_1"}, "re_1")],
)
def test_a_refund_is_final_with_or_without_words(body: object, refund_id: str) -> None:
    assert read_refund(REFUND, reply(201, body)) == Verdict(CallOutcome.REFUNDED, refund_id)


@pytest.mark.parametrize("body", [{"charge_id": "ch_2"}, {"amount_minor": 1}, *UNREADABLE[1:]])
def test_a_refund_of_something_else_proves_nothing(body: object) -> None:
    assert isinstance(read_refund(REFUND, reply(201, body)), Unclear)


@pytest.mark.parametrize("status", [402, 422])
def test_a_refused_refund_leaves_open_where_the_money_is(status: int) -> None:
    reading = read_refund(REFUND, reply(status, {"code": "refund_exceeds_charge"}))

    assert isinstance(reading, Verdict)
    assert reading.outcome is CallOutcome.UNKNOWN
    assert "refund_exceeds_charge" in reading.detail


def test_what_was_seen_has_a_limit() -> None:
    many = [WHOLE | {"id": f"ch_{n:0200}"} for n in range(100)]
    reading = read_charges(CHARGE, reply(200, {"charges": many}))

    assert isinstance(reading, Verdict)
    assert len(reading.detail) == SEEN_CHARS_MAX
