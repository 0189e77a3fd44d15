"""Which snapshot in Redis is written again although no event came, so that its `uptime` and `observed_at` do not stand
still for ever. Writing all of them each minute would cost a gigabyte a day for 1 000 CVMs.
"""

from __future__ import annotations

from bridge.store.snapshots import Snapshot
from bridge.upstream.tracked import NEVER, Tracked

EACH_AT_MOST = 60.0
"""Seconds between two writes of one snapshot without an event (docs/contract.md#redis)."""

ONE_EVERY = 4.0
"""Seconds between two such writes in all: some 20 MB of append-only file a day, however many CVMs there are."""


class StoredSnapshots:
    """Each CVM in the order in which it was stored last, the oldest first; monotonic seconds."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[float, Tracked]] = {}
        self._last = NEVER

    def stored(self, tracked: Tracked, now: float) -> None:
        """An event wrote its snapshot."""
        self._stored.pop(tracked.cvm_id, None)
        self._stored[tracked.cvm_id] = (now, tracked)

    def confirmed(self, tracked: Tracked, now: float) -> None:
        """It was confirmed; the snapshot that an earlier leader stored counts from now."""
        self._stored.setdefault(tracked.cvm_id, (now, tracked))

    def forget(self, cvm_id: str) -> None:
        self._stored.pop(cvm_id, None)

    def due(self, now: float) -> Snapshot | None:
        """The one to be written now, if any; it counts as stored."""
        at, tracked = next(iter(self._stored.values()), (now, None))
        if tracked is None or now - at < EACH_AT_MOST or now - self._last < ONE_EVERY:
            return None
        self.stored(tracked, now)
        self._last = now
        return tracked.seen.snapshot if tracked.fresh else None
