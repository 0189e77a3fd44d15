"""Whether upstream answers at all: a circuit breaker for the state route and the list. Pure; times are monotonic
seconds.

Batches neither open nor close it and are sent at their own pace: they confirm states even while the state route fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FAILURES = 5
SUBJECTS = 3
"""So many failures in a row, of so many CVMs, without an answer in between open the breaker. One CVM whose requests
fail has a backoff of its own."""

PROBE_EVERY = 3.0
"""Seconds between two requests while the breaker is open: an outage of a few seconds must not make watches stale, which
takes ten."""

DOWN_AFTER = 10.0
"""Seconds without an answer, of two requests or more, after which upstream counts as unreachable even if too few CVMs
are watched to open the breaker."""


@dataclass(slots=True)
class Breaker:
    """Closed: everything may be asked. Open: one probe now and then, and the first answer closes it."""

    failures: int = 0
    subjects: set[str] = field(default_factory=set)
    failing_since: float = math.inf
    probed_at: float = -math.inf
    recovered: bool = False
    """Whether it was open and is closed: set by the answer, taken back by the caller that saw it."""

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES and len(self.subjects) >= SUBJECTS

    def failed(self, now: float, subject: str) -> None:
        """A request about `subject` ended without an answer, or with 5xx."""
        self.failures += 1
        self.failing_since = min(self.failing_since, now)
        if len(self.subjects) < SUBJECTS:
            self.subjects.add(subject)
        if self.is_open and self.probed_at < self.failing_since:
            self.probed_at = now

    def answered(self) -> None:
        """Upstream answered, with whatever but 5xx."""
        self.recovered = self.recovered or self.is_open
        self.failures, self.failing_since = 0, math.inf
        self.subjects.clear()

    def probe(self, now: float) -> bool:
        """Whether one request may be sent while it is open; the next one is allowed `PROBE_EVERY` later."""
        if now < self.probed_at + PROBE_EVERY:
            return False
        self.probed_at = now
        return True

    def is_down(self, now: float) -> bool:
        """Whether upstream is unreachable as a whole."""
        return self.is_open or (self.failures >= 2 and now >= self.failing_since + DOWN_AFTER)
