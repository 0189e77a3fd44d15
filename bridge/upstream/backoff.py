"""Waiting longer after each failure; short again only after a healthy time, not after a mere connect."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST = 1.0
LONGEST = 60.0
HEALTHY_AFTER = 30.0
"""Seconds a stream must have lived for its end to count as ordinary and not as another failure."""


@dataclass(slots=True)
class Backoff:
    """Times are the caller's monotonic seconds."""

    failures: int = 0
    until: float = float("-inf")

    def fail(self, now: float, rng: random.Random, at_least: float = 0.0) -> float:
        """Counts a failure; returns the seconds to wait: full jitter between half and the whole of the step."""
        step = min(FIRST * 2.0**self.failures, LONGEST)
        self.failures = min(self.failures + 1, 16)
        wait = max(step * (0.5 + rng.random() / 2), at_least)
        self.until = now + wait
        return wait

    def heal(self) -> None:
        self.failures = 0
        self.until = float("-inf")
