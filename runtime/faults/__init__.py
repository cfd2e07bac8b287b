"""Failures on request: named points in the running system, faults armed at them, and what they did.

```
points    where: the one table of points, and the actions possible at each
fault     what: a fault as a value; whether it fires, and what is wrong with it, as pure functions
injector  who: `Faults`, all that is armed in this process, and how each action is carried out
hooks     the points inside the shard host
seams     the points around the log, the connection, the payment provider and the desk
metrics   what was armed and fired, for /metrics
```

Over HTTP it is `/faults` of the admin address (`runtime.edge.faults`), on the command line `orders fault`, in tests
the fixture of `runtime.testing`. All of it is there with FAULTS=on alone, which production refuses.

Off, it costs nothing that can be measured. A point is then a comparison with None, 25 ns, without a checkpoint, and an
order passes at most some thirty of them: below 1 us of the 450 us of CPU that it takes. `orders bench` with the points
against the same program without them, 48 runs of 4,000 orders in 12 blocks of off-without-without-off and its mirror
image: CPU per order 0.98 (quartiles 0.95 to 1.03), orders per second 1.03 (1.00 to 1.14), on two busy cores.
"""

from runtime.faults.fault import Fault, Mistake, MistakenFaultError
from runtime.faults.injector import (
    Armed,
    Effect,
    Faults,
    Hands,
    InjectedFaultError,
    NoSuchFaultError,
    TooManyFaultsError,
)
from runtime.faults.points import POINTS, Action, Point

__all__ = [
    "POINTS",
    "Action",
    "Armed",
    "Effect",
    "Fault",
    "Faults",
    "Hands",
    "InjectedFaultError",
    "Mistake",
    "MistakenFaultError",
    "NoSuchFaultError",
    "Point",
    "TooManyFaultsError",
]
