"""The gateway contract, without I/O: the requests we make, and what one reply to them proves.

A reply proves something (`Verdict`), or nothing (`Unclear`: the same request again may tell), or that the provider
cannot do what we say (`Rejected`). What it does not mention is taken as agreed; what contradicts us never counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from actors.actor import CallOutcome, Charge, Enquiry, Refund

BODY_AT_FAULT = frozenset({400, 413, 415, 422})
TRY_AGAIN = frozenset({408, 409, 425, 429})  # 409: the first request with this key is under way.
CANNOT_ASK = frozenset({404, 405, 501})  # To an enquiry: there is no such thing here.
NOTHING_TAKEN = frozenset({"declined", "failed"})  # Some providers list these beside the captures.
SEEN_CHARS_MAX = 500  # It goes into a state: a provider does not decide how large that is.

T = TypeVar("T")


class NoReplyError(Exception):
    """No whole reply came. The provider may have done what it was asked, or not."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `reference` is its query parameter, `key` its Idempotency-Key."""

    method: str
    path: str
    key: str = ""
    reference: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole reply."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Final for this call."""

    outcome: CallOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """It may or may not have happened."""

    seen: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """This request will never be carried out."""

    seen: str
    code: str


Reading = Verdict | Unclear | Rejected
Read = Callable[[Reply], Reading]


def charge_request(call: Charge) -> Request:
    body = {
        "reference": call.reference,
        "amount_minor": call.amount_minor,
        "currency": call.currency,
        "token": call.token,
    }
    return Request("POST", "/charges", key=call.key, body=msgspec.json.encode(body))


def refund_request(call: Refund) -> Request:
    body = {"charge_id": call.charge_id, "amount_minor": call.amount_minor}
    return Request("POST", "/refunds", key=call.key, body=msgspec.json.encode(body))


def enquiry_request(call: Charge | Enquiry) -> Request:
    return Request("GET", "/charges", reference=call.reference)


def read_charge(call: Charge, reply: Reply) -> Reading:
    """201 with a capture of exactly this charge, or 402 with a code; other replies decide nothing."""
    if reply.status == 201:
        charge = _decode(reply.body, _Charged)
        if charge is None:
            return Unclear(_seen(reply, "an unreadable body"))
        wrong = _contradiction(call, charge)
        return Unclear(_seen(reply, wrong)) if wrong else _captured(charge)
    if reply.status == 402:
        refusal = _decode(reply.body, _Refusal)
        if refusal is None:
            return Unclear(_seen(reply, "without a code"))
        return Verdict(CallOutcome.DECLINED, refusal.code)
    if reply.status in BODY_AT_FAULT:
        return Rejected(_seen(reply), f"rejected_{reply.status}")
    return _undecided(reply)


def read_charges(call: Charge | Enquiry, reply: Reply) -> Reading:
    """Exactly one capture under the reference, of what we asked for, or none. Else a person must look."""
    if reply.status in CANNOT_ASK:
        return Rejected(_seen(reply, "it cannot be asked"), f"rejected_{reply.status}")
    listed = _decode(reply.body, _Charges) if reply.status == 200 else None
    if listed is None:
        return _undecided(reply)
    found = [
        charge
        for charge in listed.charges
        if charge.reference in {None, call.reference} and charge.status not in NOTHING_TAKEN
    ]
    if not found:
        return Verdict(CallOutcome.NOT_CHARGED, "")
    if len(found) > 1:
        ids = ", ".join(charge.id for charge in found)
        wrong = f"{len(found)} charges under one reference: {ids}"
    else:
        wrong = _contradiction(call, found[0])
    return Verdict(CallOutcome.UNKNOWN, _seen(reply, wrong)) if wrong else _captured(found[0])


def read_refund(call: Refund, reply: Reply) -> Reading:
    """201 is a refund, with or without words. A refusal leaves open where the money is."""
    if reply.status != 201:
        return _undecided(reply)
    refund = _decode(reply.body or b"{}", _Refunded)
    if refund is None:
        return Unclear(_seen(reply, "an unreadable body"))
    if refund.charge_id not in {None, call.charge_id}:
        return Unclear(_seen(reply, f"a refund of another charge, {refund.charge_id!r}"))
    if refund.amount_minor not in {None, call.amount_minor}:
        return Unclear(_seen(reply, f"a refund of another amount, {refund.amount_minor}"))
    return Verdict(CallOutcome.REFUNDED, refund.id)


def _undecided(reply: Reply) -> Reading:
    if not 400 <= reply.status < 500 or reply.status in TRY_AGAIN:
        return Unclear(_seen(reply))
    # Credentials, address or permissions: it says nothing about the order, so nothing is decided on it.
    return Verdict(
        CallOutcome.UNKNOWN, _seen(reply, "refused: is PAYMENT_GATEWAY_URL the right gateway?")
    )


def _captured(charge: "_Charged") -> Verdict:
    return Verdict(CallOutcome.CAPTURED, charge.id)


def _contradiction(call: Charge | Enquiry, charge: "_Charged") -> str:
    """How a charge differs from a capture of what we asked for."""
    if charge.status != "captured":
        return f"charge {charge.id} is {charge.status!r}"
    for name in ("reference", "amount_minor", "currency"):
        ours, theirs = getattr(call, name, None), getattr(charge, name)
        if None not in {ours, theirs} and ours != theirs:
            return f"charge {charge.id} has {name} {theirs!r} instead of {ours!r}"
    return ""


def _seen(reply: Reply, what: str = "") -> str:
    refusal = _decode(reply.body, _Refusal) if reply.status >= 400 else None
    words = [str(reply.status), refusal.code if refusal else "", what]
    return " ".join(word for word in words if word)[:SEEN_CHARS_MAX]


def _decode(body: bytes, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=shape)
    except (ValueError, RecursionError):  # Not JSON, not this shape, or nested to exhaust us.
        return None


# The words on the wire.

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _Charged(msgspec.Struct, frozen=True):
    id: Word
    status: Word
    reference: str | None = None
    amount_minor: int | None = None
    currency: str | None = None


class _Listed(_Charged, frozen=True):
    status: Word = "captured"  # What the contract lists unless it says otherwise.


class _Charges(msgspec.Struct, frozen=True):
    charges: list[_Listed]


class _Refusal(msgspec.Struct, frozen=True):
    code: Word


class _Refunded(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(max_length=255)] = ""
    charge_id: str | None = None
    amount_minor: int | None = None
