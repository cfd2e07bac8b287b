"""Rows about the payment provider: silent, wrong, slow, forgetful, gone."""

from collections import Counter
from collections.abc import Mapping

import trio

from runtime.chaos.gateway_process import Trouble
from runtime.chaos.process import wait_for
from runtime.chaos.row import NotFiredError, Row, Strike
from runtime.chaos.stage import Stage

LASTS_S = (3.0, 6.0)
DOWN_LONG_S = 600.0
MET_WITHIN_S = 60.0


def behaving(name: str, trouble: Trouble) -> Strike:
    """A strike: the provider behaves like that for a while."""

    async def strike(stage: Stage) -> None:
        before = await stage.gateway.happened()
        async with stage.fault(f"the provider {name}") as fault:
            await stage.gateway.behave(trouble)
            fault.struck()
            await trio.sleep(stage.rng.uniform(*LASTS_S))
            met = await _met(stage, before)
            await stage.gateway.behave()
            if not met.total():
                raise NotFiredError("nobody paid meanwhile")
            for what, count in met.items():
                stage.counts[f"the provider {what}"] += count

    return strike


async def _met(stage: Stage, before: Mapping[str, int]) -> Counter[str]:
    """How often it has happened to somebody, once it has; other faults may keep everybody away for a while."""
    met: Counter[str] = Counter()

    async def has_happened() -> bool:
        met.clear()
        met.update(await stage.gateway.happened())
        met.subtract(before)
        return any(met.values())

    await wait_for(has_happened, every_s=0.5, within_s=MET_WITHIN_S)
    return met


async def kill_provider(stage: Stage) -> None:
    async with stage.fault("kill -9 the provider") as fault:
        await stage.gateway.kill()
        fault.struck()
        await trio.sleep(DOWN_LONG_S if stage.options.long else stage.rng.uniform(*LASTS_S))
        stage.gateway.start()
        await stage.gateway.wait_serving()


async def pause_provider(stage: Stage) -> None:
    async with stage.fault("SIGSTOP of the provider") as fault:
        stage.gateway.process.pause()
        fault.struck()
        try:
            await trio.sleep(stage.rng.uniform(*LASTS_S))
        finally:
            stage.gateway.process.resume()


ROWS = (
    Row(
        "F20",
        "the payment provider misbehaves",
        goal="0 charged twice, however many outcomes are unknown; no order failed while money is taken",
        strikes=(
            behaving("charges and never answers", Trouble(hangs=0.5)),
            behaving("charges and answers 500", Trouble(fails=0.5)),
            behaving("forgets keys", Trouble(forgets_s=2.0, fails=0.4, hangs=0.1)),
            behaving("refuses everything", Trouble(refuses=1.0)),
            behaving("is slow", Trouble(delay_s=0.7)),
            behaving("is slower than a call may take", Trouble(delay_s=3.0)),
            kill_provider,
            pause_provider,
        ),
        faults=8,
    ),
)
