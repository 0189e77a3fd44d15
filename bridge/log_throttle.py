"""Log lines about faults that may come with every event: each at most once a minute."""

from __future__ import annotations

from bridge.clock import Clock

REPEAT_EVERY = 60.0
"""Seconds between two lines about the same fault."""

MOST_FAULTS = 1000
"""Faults whose last line is remembered; the names of some come from elsewhere."""


class LogThrottle:
    """Decides when a fault is told again, and what it came to in between."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def due(self, fault: str, count: int = 1) -> int:
        """How much of the fault is to be told now; 0: nothing, it counts for the next line."""
        total = self._counts.pop(fault, 0) + count
        now = self._clock.monotonic()
        if now - self._told_at.get(fault, -REPEAT_EVERY) < REPEAT_EVERY:
            self._counts[fault] = total
            return 0
        if len(self._told_at) >= MOST_FAULTS:
            self._told_at = {name: at for name, at in self._told_at.items() if now - at < REPEAT_EVERY}
            self._counts = {name: left for name, left in self._counts.items() if name in self._told_at}
        self._told_at[fault] = now
        return total

    def left(self) -> list[tuple[str, int]]:
        """Faults that are over for a minute, with what of them is still to be told."""
        now = self._clock.monotonic()
        over = [fault for fault in self._counts if now - self._told_at.get(fault, -REPEAT_EVERY) >= REPEAT_EVERY]
        return [(fault, self.due(fault, 0)) for fault in over]
