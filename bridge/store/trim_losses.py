"""Events that were trimmed from the log although a reader had not read them: counted and logged."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prometheus_client import Counter

from bridge.clock import Clock
from bridge.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

UNREAD = Counter(
    "bridge_log_trimmed_unread", "Events trimmed from the log before these readers had read them", ["reader"]
)
"""`reader`: `webhooks`, or `groups` for one consumer group or more."""
for _reader in ("webhooks", "groups"):
    UNREAD.labels(_reader)

MOST_TOLD = 100
"""Groups with a line of their own; further ones are counted alone."""


class TrimLosses:
    """One term's. A line has the `events` since the last one."""

    def __init__(self, clock: Clock) -> None:
        self._log_throttle = LogThrottle(clock)

    def of_webhooks(self, count: int) -> None:
        if not count:
            return
        UNREAD.labels("webhooks").inc(count)
        if lost := self._log_throttle.due("webhooks", count):
            about = {"events": lost}
            logger.error("the log was trimmed before webhooks had read it: is a dispatcher running?", extra=about)

    def of_groups(self, losses: Sequence[tuple[str, int]]) -> None:
        """`losses`: name of a group ("": of any), and how many it lost, all by one append."""
        if not losses:
            return
        # Each group lost the newest of them: what the slowest one lost are all.
        UNREAD.labels("groups").inc(max(count for _, count in losses))
        for name, count in losses[:MOST_TOLD]:
            if lost := self._log_throttle.due(f"group {name}", count):
                about = {"events": lost, **({"group": name} if name else {})}
                logger.error("the log was trimmed before a consumer group had read it", extra=about)
