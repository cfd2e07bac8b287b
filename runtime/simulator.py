"""The built-in payment provider: keeps the gateway contract and a ledger, and misbehaves on request.

A charge's token scripts it:

| token | what happens |
|---|---|
| `tok_ok` | captured |
| `tok_declined` | 402 `card_declined`; any token not listed here: 402 `invalid_token` |
| `tok_slow` | captured, answered after `slow_s` |
| `tok_timeout_after_charge` | captured, but the first answer takes `hang_s`; a repeat is answered at once |
| `tok_error_after_charge` | captured, but the first answer is a 500; a repeat is answered properly |
| `tok_flaky` | 503 and nothing taken, `flaky_times` times for each key; then captured |

`Simulator` is a `runtime.gateway.Provider`, so it serves a gateway within the process as it is;
`runtime.simulator_http` puts the same object behind HTTP. `GET /ledger` shows an auditor every line.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
import trio
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.gateway_contract import Reply, Request
from runtime.simulator_ledger import Ledger, Line

KEY_CHARS_MAX = 255
REFUSALS = {"tok_declined": "card_declined"}
METHODS = {"/charges": ("GET", "POST"), "/refunds": ("POST",), "/ledger": ("GET",)}

log = logging.getLogger(__name__)


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Word = Annotated[str, Field(min_length=1, max_length=255)]
Amount = Annotated[int, Field(ge=1, lt=2**63)]
AnyBody = TypeVar("AnyBody", bound=Body)


class ChargeBody(Body):
    reference: Word
    amount_minor: Amount
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    token: Word


class RefundBody(Body):
    charge_id: Word
    amount_minor: Amount


class RefusedError(Exception):
    """A request that is answered with a 4xx: nothing moved."""

    def __init__(self, status: int, code: str, **more: Any) -> None:
        super().__init__(code)
        self.reply = _reply(status, {"code": code, **more})


class Simulator:
    """Answers requests. All that it decides and books, it does without a pause: one key, one charge."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        slow_s: float = 0.2,
        hang_s: float = 60.0,
        flaky_times: int = 2,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._ledger = ledger
        self._slow_s, self._hang_s, self._flaky_times = slow_s, hang_s, flaky_times
        self._now_ms = now_ms
        self._flakes: dict[str, int] = {}
        self._declined: dict[str, ChargeBody] = {}

    async def send(self, request: Request) -> Reply:
        """What the provider answers, and when."""
        try:
            reply, delay_s = self._answer(request)
        except RefusedError as refused:
            return refused.reply
        except OSError:
            log.exception("the ledger could not be written; nothing was booked")
            return _reply(500, {"code": "ledger_unavailable"})
        await trio.sleep(delay_s)
        return reply

    def _answer(self, request: Request) -> tuple[Reply, float]:
        match request.method, request.path:
            case "POST", "/charges":
                return self._charge(_key(request), _parse(ChargeBody, request.body))
            case "POST", "/refunds":
                return self._refund(_key(request), _parse(RefundBody, request.body)), 0
            case "GET", "/charges":
                return self._charges(request.reference), 0
            case "GET", "/ledger":
                return _reply(200, {"lines": self._ledger.lines}), 0
            case _, path if path in METHODS:
                raise RefusedError(405, "method_not_allowed", allowed=METHODS[path])
            case _:
                raise RefusedError(404, "not_found", paths=list(METHODS))

    def _charge(self, key: str, body: ChargeBody) -> tuple[Reply, float]:
        if known := self._ledger.by_key(key):
            booked = (known.kind, known.reference, known.amount_minor, known.currency, known.token)
            _same(booked, ("capture", body.reference, body.amount_minor, body.currency, body.token))
            return _charged(known), 0
        if declined := self._declined.get(key):
            _same(declined, body)
        match body.token:
            case "tok_ok":
                return _charged(self._capture(key, body)), 0
            case "tok_slow":
                return _charged(self._capture(key, body)), self._slow_s
            case "tok_timeout_after_charge":
                return _charged(self._capture(key, body)), self._hang_s
            case "tok_error_after_charge":
                self._capture(key, body)
                return _reply(500, {"code": "internal_error"}), 0
            case "tok_flaky":
                if self._flakes.get(key, 0) < self._flaky_times:
                    self._flakes[key] = self._flakes.get(key, 0) + 1
                    return _reply(503, {"code": "unavailable"}), 0
                self._flakes.pop(key, None)
                return _charged(self._capture(key, body)), 0
            case refused:
                self._declined[key] = body
                raise RefusedError(402, REFUSALS.get(refused, "invalid_token"))

    def _capture(self, key: str, body: ChargeBody) -> Line:
        charge_id = _id("ch", key)
        line = Line(
            id=charge_id,
            kind="capture",
            reference=body.reference,
            amount_minor=body.amount_minor,
            currency=body.currency,
            key=key,
            charge_id=charge_id,
            at_ms=self._now_ms(),
            token=body.token,
        )
        self._ledger.append(line)
        return line

    def _refund(self, key: str, body: RefundBody) -> Reply:
        if known := self._ledger.by_key(key):
            booked = (known.kind, known.charge_id, known.amount_minor)
            _same(booked, ("refund", body.charge_id, body.amount_minor))
            return _refunded(known)
        capture = self._ledger.capture(body.charge_id)
        if capture is None:
            raise RefusedError(422, "unknown_charge")
        left_minor = capture.amount_minor - self._ledger.refunded_minor(capture)
        if body.amount_minor > left_minor:
            raise RefusedError(422, "refund_exceeds_charge", left_minor=left_minor)
        line = Line(
            id=_id("re", key),
            kind="refund",
            reference=capture.reference,
            amount_minor=body.amount_minor,
            currency=capture.currency,
            key=key,
            charge_id=capture.id,
            at_ms=self._now_ms(),
        )
        self._ledger.append(line)
        return _refunded(line)

    def _charges(self, reference: str) -> Reply:
        if not reference:
            raise RefusedError(422, "invalid_request", errors=["reference: give ?reference="])
        return _reply(200, {"charges": [self._listed(c) for c in self._ledger.captures(reference)]})

    def _listed(self, capture: Line) -> dict[str, Any]:
        refunded_minor = self._ledger.refunded_minor(capture)
        status = "refunded" if refunded_minor == capture.amount_minor else "captured"
        return {**_public(capture), "status": status, "refunded_minor": refunded_minor}


def _key(request: Request) -> str:
    visible = request.key.isascii() and request.key.isprintable() and " " not in request.key
    if not (1 <= len(request.key) <= KEY_CHARS_MAX and visible):
        problem = f"Idempotency-Key: one, of 1 to {KEY_CHARS_MAX} visible ASCII characters"
        raise RefusedError(400, "invalid_request", errors=[problem])
    return request.key


def _parse(shape: type[AnyBody], body: bytes) -> AnyBody:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise RefusedError(422, "invalid_request", errors=problems) from error


def _same(booked: object, asked: object) -> None:
    if booked != asked:
        raise RefusedError(422, "key_reused")


def _charged(capture: Line) -> Reply:
    return _reply(201, {**_public(capture), "status": "captured"})


def _refunded(refund: Line) -> Reply:
    body = {**_public(refund), "charge_id": refund.charge_id, "status": "refunded"}
    return _reply(201, body)


def _public(line: Line) -> dict[str, Any]:
    return {
        "id": line.id,
        "reference": line.reference,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
    }


def _id(prefix: str, key: str) -> str:
    """Derived from the key, so that a simulation repeats itself to the byte."""
    return f"{prefix}_{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def _reply(status: int, body: object) -> Reply:
    return Reply(status, msgspec.json.encode(body))
