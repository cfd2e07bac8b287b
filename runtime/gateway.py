"""The payment gateway: a call to the outside goes in, what is known about the money comes out.

`Gateway.perform` follows one rule: a clear reply is final; everything else (silence, resets, 5xx, nonsense) is an
unknown outcome. It is repeated with the *same* idempotency key; a charge only after the provider has been asked, by
its reference, and knows of none: keys are forgotten some day, and ours may be older than we think. Nothing that the
outside does raises here.

How requests travel is a `Provider`: `HttpProvider`, or `runtime.simulator.Simulator` within the process.
What a reply proves is in `runtime.gateway_contract`.
"""

import random
from functools import partial
from typing import Protocol

import httpx
import trio

from actors.actor import Call, CallAnswered, CallOutcome, Charge, Enquiry, Refund
from runtime.gateway_contract import (
    Read,
    Reading,
    Rejected,
    Reply,
    Request,
    Unclear,
    Verdict,
    charge_request,
    enquiry_request,
    read_charge,
    read_charges,
    read_refund,
    refund_request,
)

ATTEMPTS_MAX = 4  # Rides out a blip of a second; longer trouble is for the actor to wait for.
PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 5.0
REPLY_BYTES_MAX = 1 << 20  # Far above the contract's needs: a broken provider must not fill us.
IDLE_S = 4.0  # Servers commonly hang up after 5 s: let go first, or a charge meets the hang-up.


class NoReplyError(Exception):
    """No whole reply came. The provider may have done what it was asked, or not."""


class Provider(Protocol):
    async def send(self, request: Request) -> Reply:
        """Carry a request there and its reply back, however long that takes: the caller limits it.

        Raises:
            NoReplyError: there was no reply, or only a part of one.
        """
        ...


class Gateway:
    """Performs calls, with at most `pool_size` requests under way at a time."""

    def __init__(
        self,
        provider: Provider,
        *,
        call_timeout_s: float,
        pool_size: int,
        rng: random.Random | None = None,
    ) -> None:
        self._provider = provider
        self._call_timeout_s = call_timeout_s
        self._slots = trio.CapacityLimiter(pool_size)
        self._rng = rng or random.Random()  # noqa: S311  # Spreads retries, keeps no secret.

    async def perform(self, key: str, call: Call, *, again: bool = False) -> CallAnswered:
        """Answer `call` for the state under `key`. `again`: it may have been sent before, nobody knows when.

        A provider in trouble makes it last, at worst through some rounds of `ATTEMPTS_MAX` timeouts and their pauses.
        """
        match call:
            case Charge():
                verdict = await self._charge(call, again or call.again)
            case Refund():
                verdict = _or_unknown(
                    await self._insist(refund_request(call), partial(read_refund, call))
                )
            case Enquiry():
                verdict = _or_unknown(await self._enquire(call))
        return CallAnswered(key, call, verdict.outcome, verdict.detail)

    async def _charge(self, call: Charge, again: bool) -> Verdict:
        reading: Unclear | Rejected = Unclear("not sent")
        for pauses in range(ATTEMPTS_MAX):
            if again:
                asked, charged = await self._ask_then_charge(call)
                if charged is None:
                    return _or_unknown(asked, f"; before that, {reading.seen}")
                got = charged
            else:
                got = await self._once(charge_request(call), partial(read_charge, call))
            if isinstance(got, Verdict):
                return got
            reading, again = got, True
            if isinstance(got, Rejected):
                break
            await self._pause(pauses)
        # Even a rejected body is asked about: it may be the key's second, after a first that charged.
        asked = await self._enquire(call)
        match reading, asked:
            case Rejected(), Verdict(outcome=CallOutcome.NOT_CHARGED):
                return Verdict(CallOutcome.DECLINED, reading.code)
            case _, Verdict():
                return asked
            case _:
                return _or_unknown(reading, f"; asked by reference, {asked.seen}")

    async def _ask_then_charge(self, call: Charge) -> tuple[Reading, Reading | None]:
        """Ask, and where nothing is charged, charge in the same slot.

        In a slot of its own the charge would wait behind the questions of all other calls; where many calls are
        recovered again and again, none would ever come to its charge.
        """
        asked: Reading = Unclear("not asked")
        for pauses in range(ATTEMPTS_MAX):
            if pauses:
                await self._pause(pauses - 1)
            async with self._slots:
                asked = await self._send(enquiry_request(call), partial(read_charges, call))
                match asked:
                    case Verdict(outcome=CallOutcome.NOT_CHARGED) | Rejected():
                        # One that cannot be asked is trusted to remember its keys.
                        charge = await self._send(charge_request(call), partial(read_charge, call))
                        return asked, charge
            if not isinstance(asked, Unclear):
                break
        return asked, None

    async def _enquire(self, call: Charge | Enquiry) -> Reading:
        return await self._insist(enquiry_request(call), partial(read_charges, call))

    async def _insist(self, request: Request, read: Read) -> Reading:
        """Send the same request until the reply is clear or the attempts are spent."""
        reading = await self._once(request, read)
        for pauses in range(ATTEMPTS_MAX - 1):
            if not isinstance(reading, Unclear):
                break
            await self._pause(pauses)
            reading = await self._once(request, read)
        return reading

    async def _pause(self, pauses: int) -> None:
        """Wait before another attempt, each time about twice as long. The slot is free meanwhile."""
        pause_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2**pauses)
        await trio.sleep(pause_s * self._rng.uniform(0.5, 1.0))

    async def _once(self, request: Request, read: Read) -> Reading:
        async with self._slots:
            return await self._send(request, read)

    async def _send(self, request: Request, read: Read) -> Reading:
        """Send it in a slot that is ours."""
        with trio.move_on_after(self._call_timeout_s):
            try:
                return read(await self._provider.send(request))
            except NoReplyError as error:
                return Unclear(str(error))
        return Unclear(f"no reply within {self._call_timeout_s:g} s")


def _or_unknown(reading: Reading, more: str = "") -> Verdict:
    if isinstance(reading, Verdict):
        return reading
    return Verdict(CallOutcome.UNKNOWN, reading.seen + more)


class HttpProvider:
    """The provider at `base_url`. Proxies and passwords that the environment suggests are not used."""

    def __init__(self, base_url: str, *, connections_max: int) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url,
            timeout=None,  # noqa: S113  # The gateway limits the exchange as a whole.
            limits=httpx.Limits(
                max_connections=connections_max,
                max_keepalive_connections=connections_max,
                keepalive_expiry=IDLE_S,
            ),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def send(self, request: Request) -> Reply:
        headers = {"Idempotency-Key": request.key} if request.key else {}
        if request.body:
            headers["Content-Type"] = "application/json"
        params = {"reference": request.reference} if request.reference else None
        http = self._client.build_request(
            request.method, request.path, params=params, headers=headers, content=request.body
        )
        http.stream = _Body(request.body)
        try:
            response = await self._client.send(http, stream=True)
            try:
                return Reply(response.status_code, await _read_body(response))
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise NoReplyError(f"{type(error).__name__} {error}".strip()) from error

    async def aclose(self) -> None:
        await self._client.aclose()


async def _read_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        if len(body) <= REPLY_BYTES_MAX:
            body += chunk  # What follows is read and dropped, until it ends or the time is up.
    if len(body) > REPLY_BYTES_MAX:
        raise NoReplyError(f"the reply was larger than {REPLY_BYTES_MAX} bytes")
    return bytes(body)


class _Body(httpx.AsyncByteStream):
    """A request's body. httpx's own is a generator, left unfinished (a warning) when the other side hangs up on it."""

    def __init__(self, body: bytes) -> None:
        self._chunks = iter((body,))

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration
