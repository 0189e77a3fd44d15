"""How often each token may do something that costs others: so many times a minute, and as many at once."""

from __future__ import annotations

from bridge.clock import Clock


class Allowance:
    """One bucket for each name; names are few, because they are those of the configured tokens."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """What is left, and when that was (monotonic)."""

    def take(self, name: str) -> float:
        """0 if it is allowed now, and is counted; else the seconds until the next time is allowed."""
        now, rate = self._clock.monotonic(), self.per_minute / 60
        left, at = self._buckets.get(name, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - at) * rate)
        if left < 1:
            return (1 - left) / rate
        self._buckets[name] = left - 1, now
        return 0.0
