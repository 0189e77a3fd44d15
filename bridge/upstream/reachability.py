"""Tells operators that upstream is unreachable: log lines, a metric, and what the probe and `/v1/slots` show."""

from __future__ import annotations

import logging

from bridge.upstream import metrics
from bridge.upstream.leader_context import LeaderContext

logger = logging.getLogger(__name__)

REPEAT_EVERY = 60.0
"""Seconds after which an outage that lasts is logged again."""


class Reachability:
    """Looks at the breaker; owned by one task."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._said_at: float | None = None
        metrics.REACHABLE.set(1)

    async def look(self) -> None:
        now, breaker = self._context.clock.monotonic(), self._context.budget.breaker
        down = self._context.is_down(now)
        metrics.REACHABLE.set(not down)
        if down and (self._said_at is None or now >= self._said_at + REPEAT_EVERY):
            seconds = round(now - breaker.failing_since)
            logger.error("upstream is unreachable", extra={"for_seconds": seconds, "failures": breaker.failures})
            self._said_at = now
        elif not down and self._said_at is not None:
            logger.info("upstream answers again")
            self._said_at = None
