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

WEBHOOKS = "webhooks"
GROUP = "group "


class TrimLosses:
    """One term's. A line has the `events` since the last one."""

    def __init__(self, clock: Clock) -> None:
        self._log_throttle = LogThrottle(clock)

    def add(self, webhooks: int, groups: Sequence[tuple[str, int]]) -> None:
        """What one append trimmed unread. `groups`: name of each ("": of any), and how many it lost."""
        lines = []
        if webhooks:
            UNREAD.labels("webhooks").inc(webhooks)
            lines.append((WEBHOOKS, self._log_throttle.due(WEBHOOKS, webhooks)))
        if groups:
            # Each group lost the newest of them: what the slowest one lost are all.
            UNREAD.labels("groups").inc(max(count for _, count in groups))
            named = [(f"{GROUP}{name}", count) for name, count in groups[:MOST_TOLD]]
            lines += [(fault, self._log_throttle.due(fault, count)) for fault, count in named]
        for fault, lost in [*lines, *self._log_throttle.left()]:
            if lost:
                _tell(fault, lost)


def _tell(fault: str, lost: int) -> None:
    if fault == WEBHOOKS:
        logger.error(
            "the log was trimmed before webhooks had read it: is a dispatcher running?", extra={"events": lost}
        )
        return
    name = fault.removeprefix(GROUP)
    about = {"events": lost, **({"group": name} if name else {})}
    logger.error("the log was trimmed before a consumer group had read it", extra=about)
