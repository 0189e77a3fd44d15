"""Keeps the CVMs watched that enabled endpoints name."""

from __future__ import annotations

from collections import Counter

from bridge.events import DELETED
from bridge.store.endpoints import EndpointSet
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches

ANNOUNCER = "webhooks"
"""One name for all dispatchers: they announce the same, and it counts once."""


class EndpointWatches:
    """Announces the CVMs that endpoints name to the leader, as front ends do for their subscribers."""

    def __init__(self, watches: Watches, snapshots: Snapshots) -> None:
        self._watches = watches
        self._snapshots = snapshots

    async def announce(self, endpoint_set: EndpointSet, seconds: float) -> None:
        """Holds for `seconds`. Leaves out CVMs that upstream reported as deleted. Raises StoreError."""
        counts = Counter(
            cvm_id for endpoint in endpoint_set.endpoints.values() if endpoint.enabled for cvm_id in endpoint.cvms
        )
        if counts:
            for cvm_id, known in (await self._snapshots.get(list(counts))).items():
                if known.status == DELETED and known.raw_state is None:
                    del counts[cvm_id]
        await self._watches.renew(counts)
        await self._watches.announce(ANNOUNCER, counts, seconds)
