"""The restart limit: at most so many restarts in a sliding period, counted per supervisor. Pure."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RestartWindow:
    """The restarts of the last `period_s` seconds, each with the child it was for."""

    intensity: int
    period_s: float
    restarts: tuple[tuple[float, str], ...] = ()  # (monotonic time, child id), oldest first.

    def add(self, now: float, child_id: str) -> "RestartWindow":
        return replace(self, restarts=(*self._recent(now), (now, child_id)))

    @property
    def exceeded(self) -> bool:
        return len(self.restarts) > self.intensity

    def count(self, now: float, child_id: str | None = None) -> int:
        """How many restarts count at this moment: of one child, or of all."""
        return sum(child_id in (None, restarted) for _, restarted in self._recent(now))

    def _recent(self, now: float) -> tuple[tuple[float, str], ...]:
        # A restart that is exactly one period old still counts, as in OTP's add_restart.
        return tuple(restart for restart in self.restarts if restart[0] >= now - self.period_s)
