"""Events that were trimmed from the log although a reader had not read them: counted and logged."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import prometheus_client

logger = logging.getLogger(__name__)

UNREAD = prometheus_client.Counter(
    "bridge_log_trimmed_unread", "Events trimmed from the log before these readers had read them", ["reader"]
)
"""`reader`: `webhooks`, or `groups` for one consumer group or more."""
for _reader in ("webhooks", "groups"):
    UNREAD.labels(_reader)

REPORT_EVERY = 1000
"""Unread events of one reader per log line."""

MOST_TOLD = 20
"""Groups with a line of their own for one append; the others have theirs at a later one."""

MOST_KNOWN = 2000
"""Groups whose losses are added up: twice what there may be at once."""


class TrimLosses:
    """One process's, of one term."""

    def __init__(self) -> None:
        self._webhooks = 0
        self._groups: Counter[str] = Counter()
        self._told: Counter[str] = Counter()

    def of_webhooks(self, count: int) -> None:
        if not count:
            return
        UNREAD.labels("webhooks").inc(count)
        self._webhooks += count
        if self._webhooks == count or self._webhooks % REPORT_EVERY < count:
            lost = {"events": self._webhooks}
            logger.error("the log was trimmed before webhooks had read it: is a dispatcher running?", extra=lost)

    def of_groups(self, losses: Sequence[tuple[str, int]]) -> None:
        """`losses`: name of a group ("": of any), and how many it lost, all by one append."""
        if not losses:
            return
        # Each group lost the newest of them: what the slowest one lost are all.
        UNREAD.labels("groups").inc(max(count for _, count in losses))
        if len(self._groups) > MOST_KNOWN:
            self._groups.clear()
            self._told.clear()
        for name, count in losses:
            self._groups[name] += count
        for name in [name for name, _ in losses if self._is_due(name)][:MOST_TOLD]:
            self._told[name] = lost = self._groups[name]
            about = {"group": name, "events": lost} if name else {"events": lost}
            logger.error("the log was trimmed before a consumer group had read it", extra=about)

    def _is_due(self, name: str) -> bool:
        return not self._told[name] or self._groups[name] - self._told[name] >= REPORT_EVERY
