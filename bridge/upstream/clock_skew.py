"""The Redis server's clock against this process's own: a leap forward must not end a quarantine early."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NOTICED = 0.5
"""Seconds. Less is the length of an answer's way, or a clock that is being adjusted; the grace covers it."""

REMEMBERED = 700.0
"""Seconds: no stream lives longer (contract section 4: a timeout of at most 600, and the graces)."""


@dataclass(slots=True)
class ClockSkew:
    """Pure; fed with each answer that told the server's time. Sees only leaps between two answers."""

    latest: float = math.nan
    """The server's time minus the monotonic one, at the most, when last seen."""
    leaps: list[tuple[float, float]] = field(default_factory=list)
    """When each was noticed (monotonic) and how far it went. Few: each is a fault of a clock."""

    def saw(self, server_time: float, sent_at: float, heard_at: float) -> None:
        """`server_time` was read between the two moments."""
        leap = server_time - heard_at - self.latest
        self.leaps = [(at, far) for at, far in self.leaps if heard_at - at < REMEMBERED][-100:]
        if leap > NOTICED:
            self.leaps.append((heard_at, leap))
        self.latest = server_time - sent_at

    def leapt(self, within: float, now: float) -> float:
        """Seconds by which the server's clock leapt forward during the last `within` seconds."""
        return sum(far for at, far in self.leaps if now - at < within)
