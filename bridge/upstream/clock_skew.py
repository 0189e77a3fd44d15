"""The Redis server's clock against this process's own: a jump forward must not end a quarantine early."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NOTICED = 0.5
"""Seconds. A smaller jump is network delay or a clock being adjusted; the grace periods cover it."""

REMEMBERED = 700.0
"""Seconds: no stream lives longer, with a timeout of at most 600 (docs/contract.md#environment) and grace periods."""


@dataclass(slots=True)
class ClockSkew:
    """Pure. It gets each answer that contains the server's time, and sees only jumps between two answers."""

    latest: float = math.nan
    """An upper bound of the server's time minus the monotonic time, as last seen."""
    jumps: list[tuple[float, float]] = field(default_factory=list)
    """When each jump was noticed (monotonic) and its seconds. They are few: each is a fault of a clock."""

    def observe(self, server_time: float, sent_at: float, received_at: float) -> None:
        """`server_time` was read between the two moments."""
        jump = server_time - received_at - self.latest
        self.jumps = [(at, far) for at, far in self.jumps if received_at - at < REMEMBERED][-100:]
        if jump > NOTICED:
            self.jumps.append((received_at, jump))
        self.latest = server_time - sent_at

    def jumped(self, within: float, now: float) -> float:
        """Seconds by which the server's clock jumped forward during the last `within` seconds."""
        return sum(far for at, far in self.jumps if now - at < within)
