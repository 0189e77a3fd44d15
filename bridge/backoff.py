"""Longer waits after each failure; short ones again after a healthy time, not after a mere connection."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST = 1.0
LONGEST = 60.0
HEALTHY_AFTER = 30.0
"""Seconds: the end of a stream that lived shorter counts as a failure."""


@dataclass(slots=True)
class Backoff:
    """Times are the caller's monotonic seconds; `first` and `longest` are the steps that waits grow from and to."""

    failures: int = 0
    until: float = float("-inf")
    first: float = FIRST
    longest: float = LONGEST

    def fail(self, now: float, rng: random.Random, at_least: float = 0.0) -> float:
        """Counts a failure; returns the seconds to wait: full jitter between half and the whole of the step."""
        step = min(self.first * 2.0**self.failures, self.longest)
        self.failures = min(self.failures + 1, 16)
        wait = max(step * (0.5 + rng.random() / 2), at_least)
        self.until = now + wait
        return wait

    def heal(self) -> None:
        self.failures = 0
        self.until = float("-inf")
