"""Keeps the CVMs watched that enabled endpoints name."""

from __future__ import annotations

from collections import Counter

from bridge.events import DELETED
from bridge.store.connection import Backend
from bridge.store.endpoints import EndpointSet
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches

ANNOUNCER = "webhooks"
"""One name for all dispatchers: they announce the same, and it counts once."""


async def announce_named_cvms(backend: Backend, endpoint_set: EndpointSet, seconds: float) -> None:
    """Announces the CVMs that endpoints name to the leader for `seconds`, as front ends do for their subscribers.

    Leaves out CVMs that upstream reported as deleted. Raises StoreError.
    """
    counts = Counter(
        cvm_id for endpoint in endpoint_set.endpoints.values() if endpoint.enabled for cvm_id in endpoint.cvms
    )
    if counts:
        for cvm_id, known in (await Snapshots(backend).get(list(counts))).items():
            if known.status == DELETED and known.raw_state is None:
                del counts[cvm_id]
    watches = Watches(backend)
    await watches.renew(counts)
    await watches.announce(ANNOUNCER, counts, seconds)
