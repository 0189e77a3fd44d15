"""Which writes need a replica's confirmation before they count (docs/decisions/013). Pure but for log lines."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

from bridge.store.replicas import Copies
from bridge.upstream.tracked import NEVER

logger = logging.getLogger(__name__)

CONFIRM_MS = 1000
"""Milliseconds for which a replica may delay its confirmation; usually it takes one or two."""

EXPECTED_FOR = 600.0
"""Seconds for which streams wait for a replica that was there: longer than a restart, and than most partitions."""

IGNORED_AFTER = 90.0
"""Seconds after which replicas that follow and confirm nothing are ignored. Redis itself drops a silent one after 60
(`repl-timeout`)."""


@dataclass(slots=True)
class Replication:
    """What this process has learned of the replicas; times are monotonic."""

    seen: Copies | None = None
    confirmed_at: float = NEVER
    silent_since: float = math.inf
    """Since when replicas follow and confirm nothing."""
    _said: set[str] = field(default_factory=set)

    def observe(self, copies: Copies, now: float) -> None:
        """After every acquisition and renewal of the lease."""
        if self.seen is not None and copies.server != self.seen.server:
            self.confirmed_at = NEVER  # another primary: what the one before had says nothing of it
        self.seen = copies
        if copies.confirmed:
            self.confirmed_at, self.silent_since = now, math.inf
        else:
            self.silent_since = min(self.silent_since, now) if copies.connected else math.inf
        self._report(copies, now)

    def renewal_waits(self, lease: float) -> int:
        """Milliseconds for which a renewal waits for a confirmation."""
        return min(CONFIRM_MS, int(lease * 250)) if self.seen and self.seen.connected else 0

    def counts(self, now: float) -> bool:
        """Whether the renewal just observed counts. Without replicas it does: the primary may be the last one."""
        confirmed = self.seen is None or self.seen.confirmed != 0 or not self.seen.connected
        return confirmed or now - self.silent_since > IGNORED_AFTER

    def take_waits(self, now: float) -> int:
        """Milliseconds for which a taken slot waits for a confirmation; without it no stream is opened."""
        return CONFIRM_MS if self._expects(now) else 0

    def is_missing(self, now: float) -> bool:
        """Whether a replica was there and is gone: this primary may be cut off from a promoted one."""
        return self._expects(now) and not (self.seen and self.seen.connected)

    def _expects(self, now: float) -> bool:
        silent = now - self.silent_since > IGNORED_AFTER
        return now - self.confirmed_at < EXPECTED_FOR or bool(self.seen and self.seen.connected and not silent)

    def _report(self, copies: Copies, now: float) -> None:
        """Each state once, until it has passed."""
        states = {
            "Redis does not tell whether it has replicas: give the rights +info and +wait": copies.connected is None,
            "no replica of Redis confirms what is written: the lease does not count as renewed": not self.counts(now),
            "Redis lost its replicas: no stream is opened until one is back, or for ten minutes": self.is_missing(now),
        }
        for line, holds in states.items():
            if holds and line not in self._said:
                logger.warning(line)
        self._said = {line for line, holds in states.items() if holds}
