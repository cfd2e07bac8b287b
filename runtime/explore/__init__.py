"""The explorer: the real actors, shards and supervisors where everything that can go wrong does, in virtual time.

```python
summary = explore(range(2_000))  # Draws a schedule from each seed, plays it, audits it.
summary.failures  # Outcomes with findings: `orders explore --replay SEED` shows one, `--shrink` makes it small.
```

| module | what it holds |
|---|---|
| `schedule`, `draw` | a run as a value (orders, faults, conditions), and how one is drawn from a seed |
| `world`, `wires` | what a process stands on: the broker, the provider, and the ways to them, where messages get lost |
| `platform`, `nemesis` | what starts processes, and what breaks them: which fault comes when |
| `customers` | who orders, cancels and looks, and writes down what was said |
| `play` | one run, always the same |
| `judge` | the audit of a run, and what must happen sometimes |
| `fleet` | many runs |
| `shrink` | from a schedule that fails to a small one that fails the same way |
| `timeline` | a run, told line by line |
"""

from runtime.explore.draw import draw
from runtime.explore.fleet import Summary, explore
from runtime.explore.judge import Outcome, run_schedule, run_seed
from runtime.explore.schedule import Fault, Kind, Order, Schedule, When
from runtime.explore.shrink import shrink

__all__ = [
    "Fault",
    "Kind",
    "Order",
    "Outcome",
    "Schedule",
    "Summary",
    "When",
    "draw",
    "explore",
    "run_schedule",
    "run_seed",
    "shrink",
]
