"""The simulated provider, spoken to directly: the gateway contract, rule by rule."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from runtime.gateway_contract import Reply, Request
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger

CHARGE = {"reference": "o1", "amount_minor": 1530, "currency": "GBP", "token": "tok_ok"}


def simulated() -> tuple[Simulator, Ledger]:
    ledger = Ledger()
    return Simulator(ledger, slow_s=0.2, hang_s=60, flaky_times=2, now_ms=lambda: 1_700), ledger


async def post(simulator: Simulator, path: str, key: str, body: Any) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _said(await simulator.send(Request("POST", path, key=key, body=raw)))


async def get(simulator: Simulator, path: str, reference: str = "") -> tuple[int, Any]:
    return _said(await simulator.send(Request("GET", path, reference=reference)))


def _said(reply: Reply) -> tuple[int, Any]:
    return reply.status, json.loads(reply.body)


@pytest.mark.parametrize(
    ("token", "answers", "captures"),
    [
        ("tok_ok", [201, 201], 1),
        ("tok_declined", [402, 402], 0),
        ("tok_slow", [201, 201], 1),
        ("tok_timeout_after_charge", [201, 201], 1),
        ("tok_error_after_charge", [500, 201, 201], 1),
        ("tok_flaky", [503, 503, 201, 201], 1),
        ("tok_unheard_of", [402, 402], 0),
    ],
)
async def test_a_token_scripts_the_answers_to_one_key(
    autojump_clock: trio.testing.MockClock, token: str, answers: list[int], captures: int
) -> None:
    simulator, ledger = simulated()

    charge = CHARGE | {"token": token}
    seen = [await post(simulator, "/charges", "k1", charge) for _ in answers]

    assert [status for status, _ in seen] == answers
    assert len(ledger.lines) == captures
    bodies = [body for status, body in seen if status == 201]
    assert all(body == bodies[0] for body in bodies)


@pytest.mark.parametrize(
    ("token", "delays_s"),
    [
        ("tok_ok", [0, 0]),
        ("tok_slow", [0.2, 0]),
        ("tok_timeout_after_charge", [60, 0]),
    ],
)
async def test_only_the_first_answer_is_late(
    autojump_clock: trio.testing.MockClock, token: str, delays_s: list[float]
) -> None:
    simulator, _ = simulated()

    for delay_s in delays_s:
        asked_at = trio.current_time()
        await post(simulator, "/charges", "k1", CHARGE | {"token": token})
        assert trio.current_time() - asked_at == pytest.approx(delay_s)


@pytest.mark.parametrize(
    ("token", "code"), [("tok_declined", "card_declined"), ("tok_new", "invalid_token")]
)
async def test_a_refusal_names_its_code(token: str, code: str) -> None:
    simulator, _ = simulated()

    answer = await post(simulator, "/charges", "k1", CHARGE | {"token": token})

    assert answer == (402, {"code": code})


async def test_a_capture_repeats_what_was_asked_for() -> None:
    simulator, ledger = simulated()

    status, body = await post(simulator, "/charges", "k1", CHARGE)

    charge = {"reference": "o1", "amount_minor": 1530, "currency": "GBP"}
    assert (status, body) == (201, charge | {"id": ledger.lines[0].id, "status": "captured"})


async def test_a_charge_cut_off_while_it_is_answered_has_been_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    simulator, ledger = simulated()

    with trio.move_on_after(1):
        await post(simulator, "/charges", "k1", CHARGE | {"token": "tok_timeout_after_charge"})

    assert len(ledger.lines) == 1


async def test_requests_at_the_same_time_with_one_key_make_one_charge(
    autojump_clock: trio.testing.MockClock,
) -> None:
    simulator, ledger = simulated()

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            slow = CHARGE | {"token": "tok_slow"}
            nursery.start_soon(post, simulator, "/charges", "k1", slow)

    assert len(ledger.lines) == 1


@pytest.mark.parametrize("token", ["tok_ok", "tok_declined"])
@pytest.mark.parametrize(
    "change", [{"amount_minor": 1}, {"reference": "o2"}, {"currency": "EUR"}, {"token": "tok_x"}]
)
async def test_a_key_with_another_body_is_refused(token: str, change: dict[str, object]) -> None:
    simulator, ledger = simulated()
    first = CHARGE | {"token": token}
    await post(simulator, "/charges", "k1", first)
    before = ledger.lines

    assert await post(simulator, "/charges", "k1", first | change) == (422, {"code": "key_reused"})
    assert ledger.lines == before


async def test_a_key_is_for_a_charge_or_a_refund_not_both() -> None:
    simulator, _ = simulated()
    _, charge = await post(simulator, "/charges", "k1", CHARGE)
    refund = {"charge_id": charge["id"], "amount_minor": CHARGE["amount_minor"]}

    assert await post(simulator, "/refunds", "k1", refund) == (422, {"code": "key_reused"})
    assert (await post(simulator, "/refunds", "k2", refund))[0] == 201
    assert await post(simulator, "/charges", "k2", CHARGE) == (422, {"code": "key_reused"})


async def test_refunds_are_made_once_and_never_exceed_the_charge() -> None:
    simulator, ledger = simulated()
    _, charge = await post(simulator, "/charges", "k1", CHARGE)

    async def refund(key: str, amount_minor: int) -> tuple[int, Any]:
        body = {"charge_id": charge["id"], "amount_minor": amount_minor}
        return await post(simulator, "/refunds", key, body)

    first, again = await refund("r1", 1500), await refund("r1", 1500)
    too_much, other_body, rest = (
        await refund("r2", 31),
        await refund("r1", 1),
        await refund("r2", 30),
    )

    assert first[0] == 201
    assert again == first
    assert too_much == (422, {"code": "refund_exceeds_charge", "left_minor": 30})
    assert other_body == (422, {"code": "key_reused"})
    assert rest[0] == 201
    assert [line.amount_minor for line in ledger.lines] == [1530, 1500, 30]


async def test_what_was_never_charged_is_not_refunded() -> None:
    simulator, _ = simulated()

    answer = await post(simulator, "/refunds", "r1", {"charge_id": "ch_0", "amount_minor": 1})

    assert answer == (422, {"code": "unknown_charge"})


async def test_a_reference_lists_its_charges_and_what_came_back() -> None:
    simulator, _ = simulated()
    _, charge = await post(simulator, "/charges", "k1", CHARGE)
    await post(simulator, "/charges", "k2", CHARGE | {"reference": "o2"})

    async def listed() -> Any:
        return await get(simulator, "/charges", "o1")

    assert await listed() == (200, {"charges": [charge | {"refunded_minor": 0}]})
    for key, amount_minor, status in [("r1", 1000, "captured"), ("r2", 530, "refunded")]:
        refund = {"charge_id": charge["id"], "amount_minor": amount_minor}
        await post(simulator, "/refunds", key, refund)
        assert (await listed())[1]["charges"][0]["status"] == status
    assert await get(simulator, "/charges", "o3") == (200, {"charges": []})
    assert (await get(simulator, "/charges"))[0] == 422


async def test_the_ledger_shows_every_line_to_an_auditor() -> None:
    simulator, _ = simulated()
    _, charge = await post(simulator, "/charges", "k1", CHARGE)
    _, refund = await post(
        simulator, "/refunds", "r1", {"charge_id": charge["id"], "amount_minor": 30}
    )

    both = {"reference": "o1", "currency": "GBP", "charge_id": charge["id"], "at_ms": 1_700}
    capture_line = {"id": charge["id"], "kind": "capture", "key": "k1", "amount_minor": 1530}
    refund_line = {"id": refund["id"], "kind": "refund", "key": "r1", "amount_minor": 30}
    assert await get(simulator, "/ledger") == (
        200,
        {
            "lines": [
                both | capture_line | {"token": "tok_ok"},
                both | refund_line | {"token": ""},
            ]
        },
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"amount_minor": 0}, "amount_minor"),
        ({"amount_minor": -1}, "amount_minor"),
        ({"amount_minor": 1.0}, "amount_minor"),
        ({"amount_minor": True}, "amount_minor"),
        ({"amount_minor": "1"}, "amount_minor"),
        ({"amount_minor": 2**63}, "amount_minor"),
        ({"currency": "gbp"}, "currency"),
        ({"currency": "GBP\n"}, "currency"),
        ({"currency": None}, "currency"),
        ({"reference": ""}, "reference"),
        ({"reference": "x" * 256}, "reference"),
        ({"token": ""}, "token"),
        ({"tip": 1}, "tip"),
    ],
)
async def test_a_field_at_fault_is_named_and_nothing_is_taken(
    change: dict[str, object], named: str
) -> None:
    simulator, ledger = simulated()

    status, body = await post(simulator, "/charges", "k1", CHARGE | change)

    assert (status, body["code"]) == (422, "invalid_request")
    assert [error.split(":")[0] for error in body["errors"]] == [named]
    assert not ledger.lines


async def test_every_fault_is_named_at_once() -> None:
    simulator, _ = simulated()

    _, body = await post(simulator, "/charges", "k1", {"amount_minor": 0, "currency": "£"})

    named = [error.split(":")[0] for error in body["errors"]]
    assert named == ["reference", "amount_minor", "currency", "token"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"amount_minor": NaN}', b"[" * 9999])
@pytest.mark.parametrize("path", ["/charges", "/refunds"])
async def test_what_is_no_body_is_refused(path: str, body: bytes) -> None:
    simulator, _ = simulated()

    assert (await post(simulator, path, "k1", body))[0] == 422


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a, b", "\x7f", "é", "tab\t"])
@pytest.mark.parametrize("path", ["/charges", "/refunds"])
async def test_a_key_is_one_word_of_visible_ascii(path: str, key: str) -> None:
    simulator, ledger = simulated()

    status, body = await post(simulator, path, key, CHARGE)

    assert (status, body["code"]) == (400, "invalid_request")
    assert "Idempotency-Key" in body["errors"][0]
    assert not ledger.lines


async def test_other_doors_are_closed() -> None:
    simulator, _ = simulated()

    assert (await get(simulator, "/"))[0] == 404
    assert (await get(simulator, "/refunds"))[0] == 405
    assert (await post(simulator, "/ledger", "k1", {}))[0] == 405


async def test_ids_come_from_the_key_alone() -> None:
    ids = []
    for other in ("k0", "k2"):
        simulator, _ = simulated()
        await post(simulator, "/charges", other, CHARGE)
        _, charge = await post(simulator, "/charges", "k1", CHARGE)
        ids.append(charge["id"])

    assert ids[0] == ids[1]
