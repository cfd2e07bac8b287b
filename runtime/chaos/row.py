"""A row of the table of faults, as a value: what is broken, on what ground, and what it should cost.

Most rows are `strikes`: one fault each, from the moment it happens to the moment it is healed. The campaign repeats
them with quiet periods between, and mixes them with those of other rows. A row that is no such thing has a `run`.

```python
async def kill(stage: Stage) -> None:
    async with stage.fault("kill -9 the instance") as fault:
        await stage.instance.kill()
        fault.struck()

ROWS = (Row("F1", "the instance is killed", goal="...", strikes=(kill,)),)
```
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.chaos.brokers import SYNC_ALWAYS, Ground
from runtime.chaos.host import LOOPBACK, Host

if TYPE_CHECKING:
    from runtime.chaos.stage import Stage

Strike = Callable[["Stage"], Awaitable[None]]


class NotFiredError(Exception):
    """A fault that could not be made to happen this time. It is counted as planned, and not as fired."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one campaign of one row is asked for. None is the row's own measure; `orders` and `for_s` are lower bounds.

    `sync_interval` of the brokers is for planted bugs in tests alone.
    """

    directory: Path
    brokers: int = 1
    faults: int | None = None
    orders: int = 0
    rate: float = 20.0
    for_s: float = 0.0
    seed: int = 0
    long: bool = False
    """Also what takes minutes each."""
    draws: bool = False
    """Also a picture of it."""
    sync_interval: str = SYNC_ALWAYS
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """What everything stands on, before anything has started.

    `environ` is the instance's, beside its own; `tools` are whatever the row's strikes need of this ground, by name.
    """

    grounds: Sequence[Ground]
    instance_host: Host = LOOPBACK
    gateway_host: Host = LOOPBACK
    environ: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, object] = field(default_factory=dict)


MakeSetting = Callable[[Options], AbstractAsyncContextManager[Setting]]


@asynccontextmanager
async def this_machine(options: Options) -> AsyncIterator[Setting]:
    """All on loopback, with the stores in the run's directory."""
    yield Setting(grounds_on(LOOPBACK, options))


def grounds_on(host: Host, options: Options) -> list[Ground]:
    """A store in the run's directory for each broker."""
    return [
        Ground(host, options.directory / f"broker-{number}")
        for number in range(1, options.brokers + 1)
    ]


def _nothing_missing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. Beside the fields that speak for themselves:

    - `missing` says what this machine lacks for it and how to get it; nothing if it lacks nothing.
    - `setting` makes the ground, and takes it away again.
    - `wire` may put something between the parts, once brokers and gateway run and before the instance does: it sets
      `stage.nats_urls` and `stage.gateway_url`, and starts what it needs in `stage.nursery`.
    - `watch` runs beside all of it, for what has to be seen while it happens.
    - `judge` looks at the whole run when it is quiet again, and adds to `stage.findings`.
    - `explains` is a regular expression of log lines that are no sign of ill health while this is broken.
    - `pause_s` is how long it is quiet between two faults, from and to; recovery comes on top.
    """

    id: str
    name: str
    goal: str
    strikes: Sequence[Strike] = ()
    run: Strike | None = None
    faults: int = 10
    brokers: frozenset[int] = frozenset({1, 3})
    pause_s: tuple[float, float] = (1.0, 3.0)
    missing: Callable[[], str] = _nothing_missing
    setting: MakeSetting = this_machine
    wire: Strike | None = None
    watch: Strike | None = None
    judge: Strike | None = None
    explains: str = ""
    in_mix: bool = True
    """Whether its strikes belong among those of the mixed row; they must need no ground of their own."""
