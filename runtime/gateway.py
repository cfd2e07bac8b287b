"""The payment gateway: a call to the outside goes in, what is known about the money comes out.

`Gateway.perform` follows one rule: a clear reply is final; everything else (silence, resets, 5xx, nonsense) is an
unknown outcome. It is repeated with the *same* idempotency key; a charge only after the provider has been asked, by
its reference, and knows of none: keys are forgotten some day, and ours may be older than we think. Nothing that the
outside does raises here.

What a reply proves is in `runtime.gateway_contract`, whose turn it is in `runtime.gateway_slots`, and which tasks do
this in `runtime.gateway_calls`. How requests travel is a `Provider`: `runtime.gateway_http`, or
`runtime.simulator.Simulator` within the process.
"""

import random
from functools import partial
from typing import Protocol

import trio

from actors.actor import CallAnswered, CallOutcome, Charge, Enquiry, Refund
from runtime.gateway_contract import (
    NoReplyError,
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
from runtime.gateway_http import HttpProvider
from runtime.gateway_slots import OutOfReachError, Owed, Slots

__all__ = ["Gateway", "HttpProvider", "NoReplyError", "Provider"]

ATTEMPTS_MAX = 4  # Rides out a blip of a second; longer trouble is for the actor to wait for.
PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 5.0
PATIENCE = 3  # Call timeouts that a call is held while the provider is out of reach.


class Provider(Protocol):
    async def send(self, request: Request) -> Reply:
        """Carry a request there and its reply back, however long that takes: the caller limits it.

        Raises:
            NoReplyError: there was no reply, or only a part of one.
        """
        ...


class Gateway:
    """Performs calls, with at most `pool_size` requests under way at a time, and some late ones beside them."""

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
        self.slots = Slots(
            pool_size, call_timeout_s=call_timeout_s, patience_s=PATIENCE * call_timeout_s
        )
        self._rng = rng or random.Random()  # noqa: S311  # Spreads retries, keeps no secret.

    async def perform(self, owed: Owed) -> CallAnswered:
        """Answer a call that has a place. It gives it up while it pauses; in the end that is left to whoever asked.

        A provider in trouble makes it last, at worst through some rounds of `ATTEMPTS_MAX` timeouts and their pauses.
        """
        try:
            verdict = await self._find_out(owed)
        except OutOfReachError as error:
            return unknown(owed, error)
        return CallAnswered(owed.key, owed.call, verdict.outcome, verdict.detail)

    async def _find_out(self, owed: Owed) -> Verdict:
        match owed.call:
            case Charge() as call:
                return await self._charge(owed, call)
            case Refund() as call:
                read = partial(read_refund, call)
                return _or_unknown(await self._insist(owed, refund_request(call), read))
            case Enquiry() as call:
                return _or_unknown(await self._enquire(owed, call))

    async def _charge(self, owed: Owed, call: Charge) -> Verdict:
        reading: Unclear | Rejected = Unclear("not sent")
        again = owed.again or call.again
        for pauses in range(ATTEMPTS_MAX):
            if again:
                asked, charged = await self._ask_then_charge(owed, call)
                if charged is None:
                    return _or_unknown(asked, f"; before that, {reading.seen}")
                got = charged
            else:
                got = await self._send(charge_request(call), partial(read_charge, call))
            if isinstance(got, Verdict):
                return got
            reading, again = got, True
            if isinstance(got, Rejected):
                break
            await self._pause(owed, pauses)
        # Even a rejected body is asked about: it may be the key's second, after a first that charged.
        asked = await self._enquire(owed, call)
        match reading, asked:
            case Rejected(), Verdict(outcome=CallOutcome.NOT_CHARGED):
                return Verdict(CallOutcome.DECLINED, reading.code)
            case _, Verdict():
                return asked
            case _:
                return _or_unknown(reading, f"; asked by reference, {asked.seen}")

    async def _ask_then_charge(self, owed: Owed, call: Charge) -> tuple[Reading, Reading | None]:
        """Ask, and where nothing is charged, charge in the same place.

        With a place of its own the charge would wait behind the questions of all other calls; where many calls are
        recovered again and again, none would ever come to its charge.
        """
        asked = await self._enquire(owed, call)
        match asked:
            case Verdict(outcome=CallOutcome.NOT_CHARGED) | Rejected():
                # One that cannot be asked is trusted to remember its keys.
                return asked, await self._send(charge_request(call), partial(read_charge, call))
            case _:
                return asked, None

    async def _enquire(self, owed: Owed, call: Charge | Enquiry) -> Reading:
        return await self._insist(owed, enquiry_request(call), partial(read_charges, call))

    async def _insist(self, owed: Owed, request: Request, read: Read) -> Reading:
        """Send the same request until the reply is clear or the attempts are spent."""
        reading = await self._send(request, read)
        for pauses in range(ATTEMPTS_MAX - 1):
            if not isinstance(reading, Unclear):
                break
            await self._pause(owed, pauses)
            reading = await self._send(request, read)
        return reading

    async def _pause(self, owed: Owed, pauses: int) -> None:
        """Wait before another attempt, each time about twice as long, and then for a place: it is free meanwhile."""
        self.slots.leave(owed)
        owed.repeats = True
        pause_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2**pauses)
        await trio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
        await self.slots.wait_place(owed)

    async def _send(self, request: Request, read: Read) -> Reading:
        """Send it in a place that is ours."""
        reading: Reading = Unclear(f"no reply within {self._call_timeout_s:g} s")
        with trio.move_on_after(self._call_timeout_s):
            try:
                reading = read(await self._provider.send(request))
            except NoReplyError as error:
                reading = Unclear(str(error) or "no reply")
        self.slots.note(reading.seen if isinstance(reading, Unclear) else "")
        return reading


def unknown(owed: Owed, why: OutOfReachError) -> CallAnswered:
    """The answer to a call for which patience was over."""
    return CallAnswered(
        owed.key, owed.call, CallOutcome.UNKNOWN, f"the provider is out of reach: {why}"
    )


def _or_unknown(reading: Reading, more: str = "") -> Verdict:
    if isinstance(reading, Verdict):
        return reading
    return Verdict(CallOutcome.UNKNOWN, reading.seen + more)
