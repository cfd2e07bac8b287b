"""The nemesis: counts what happens, and lets each fault come when its number is up."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import trio

from runtime.explore.schedule import OF_MESSAGES, Fault, When


class Nemesis:
    """Holds the faults of one run. What befalls a message is returned to whoever carries it; `act` does the rest."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.act: Callable[[Fault], None]
        self._due: dict[tuple[When, int], list[Fault]] = defaultdict(list)
        for fault in faults:
            self._due[fault.when, fault.at].append(fault)
        self.counts: Counter[When] = Counter()
        self.fired: list[tuple[float, Fault]] = []
        """What has come, and when in virtual seconds."""
        self.seen: Counter[str] = Counter()
        """What one hopes to meet while exploring, and how often it was met."""

    @property
    def counts_steps(self) -> bool:
        return any(when is When.STEP for when, _ in self._due)

    def count(self, when: When) -> Fault | None:
        """One more of these. Returns what befalls this message, if anything does."""
        self.counts[when] = number = self.counts[when] + 1
        return self._fire((when, number)) if (when, number) in self._due else None

    async def keep_time(self) -> None:
        """Let those come that wait for a time; ends after the last one."""
        for when, at_ms in sorted(due for due in self._due if due[0] is When.MS):
            await trio.sleep_until(at_ms / 1000)
            self._fire((when, at_ms))

    def rest(self) -> None:
        """Whatever has not come until now does not come any more."""
        self._due.clear()

    def _fire(self, due: tuple[When, int]) -> Fault | None:
        fate = None
        for fault in self._due.pop(due, ()):
            self.fired.append((trio.current_time(), fault))
            if fault.kind in OF_MESSAGES:
                fate = fault
            else:
                self.act(fault)
        return fate


class StepCounter(trio.abc.Instrument):
    """Counts each time that a task goes on: between two awaits of any task, something can happen."""

    def __init__(self, nemesis: Nemesis) -> None:
        self._nemesis = nemesis

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # Whoever it is.
        self._nemesis.count(When.STEP)
