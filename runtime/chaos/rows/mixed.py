"""The mixed row: faults of all other rows at random, up to three of different kinds at a time, with quiet between."""

from collections.abc import Mapping, Sequence

import trio

from runtime.chaos.row import NotFiredError, Row, Strike
from runtime.chaos.rows import actors, brokers, processes, provider
from runtime.chaos.stage import Stage

QUIET_SHARE = 0.25
QUIET_S = 8.0
TOGETHER = (1, 1, 1, 2, 2, 3)  # How many at a time; drawn from these.
ALONE: Sequence[Strike] = (brokers.cold_restart,)


def kinds() -> Mapping[str, Sequence[Strike]]:
    """What can be mixed, by what it breaks; of one kind there is one at a time."""
    families = {"brokers": [brokers], "instance": [processes, actors], "provider": [provider]}
    return {
        kind: [
            strike
            for module in modules
            for row in module.ROWS
            if row.in_mix
            for strike in row.strikes
            if strike not in ALONE
        ]
        for kind, modules in families.items()
    }


async def mix(stage: Stage) -> None:
    """Break things until so many faults have happened; some come to nothing because of others."""
    mixed, tried = kinds(), 0
    while stage.fired < stage.planned and tried < 2 * stage.planned:
        if stage.rng.random() < QUIET_SHARE:
            await trio.sleep(QUIET_S)
        chosen = _draw(stage, mixed)[: stage.planned - stage.fired]
        tried += len(chosen)
        async with trio.open_nursery() as nursery:
            for strike in chosen:
                nursery.start_soon(_try, stage, strike)
        await stage.pause()


def _draw(stage: Stage, mixed: Mapping[str, Sequence[Strike]]) -> list[Strike]:
    rng = stage.rng
    if rng.random() < 0.05:
        return [rng.choice(ALONE)]
    return [rng.choice(mixed[kind]) for kind in rng.sample(sorted(mixed), rng.choice(TOGETHER))]


async def _try(stage: Stage, strike: Strike) -> None:
    try:
        await strike(stage)
    except (trio.TooSlowError, NotFiredError) as error:
        stage.notes.append(f"{strike.__name__} did not come to its end: {error!r}")


ROWS = (
    Row(
        "F28",
        "everything at random",
        goal="0/0",
        run=mix,
        faults=20,
        pause_s=(1.0, 4.0),
        in_mix=False,
    ),
)
