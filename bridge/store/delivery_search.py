"""Deliveries of all endpoints, newest first, without an index of their own: each endpoint's lists are merged.

An endpoint is read as of one moment. A delivery keeps its stamp when its status changes, so that a page misses none
that moves from one list to another meanwhile.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

from bridge.store.connection import Backend, load_script
from bridge.store.deliveries import (
    DELIVERY_STATUSES,
    LEAST_TOO_HIGH,
    READ_AT_ONCE,
    Deliveries,
    Delivery,
    DeliveryStatus,
    check_cursor,
)
from bridge.store.endpoints import Endpoints
from bridge.store.lane_repair import run_lane_script
from bridge.store.limits import LaneLimits

HEADS_AT_ONCE = 500
"""Endpoints per script: some 3 ms, during which the server answers no other client."""

ROWS_AT_ONCE = 50
"""Rows of one endpoint per read: few endpoints have more on a page."""

MOST_LOOKED, MOST_LOOKED_BYTES = 5000, 8 << 20
"""What one page looks at where a filter lets little through; then it ends, and the caller continues."""


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """What to list; all must hold. `event` is an event's id, `cvm` a CVM's id or the name that the event has.

    `since_ms` and `until_ms` (both inclusive): when the delivery was queued last.
    """

    _: KW_ONLY
    event: str = ""
    cvm: str = ""
    status: DeliveryStatus | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def lets_through(self, delivery: Delivery) -> bool:
        """Whether it is about the CVM; the lists know the rest."""
        if not self.cvm or delivery.event.cvm_id == self.cvm:
            return True
        data = json.loads(delivery.event.json, parse_int=str)["data"]
        return isinstance(data, dict) and data.get("name") == self.cvm


class DeliverySearch:
    """Any process may use it. Raises StoreError."""

    _heads = load_script("lane_rules", "delivery_heads")

    def __init__(self, backend: Backend, limits: LaneLimits | None = None) -> None:
        self._backend = backend
        self._deliveries = Deliveries(backend, limits)
        self._endpoints = Endpoints(backend, limits)
        self._limits = (limits or LaneLimits()).to_json()

    async def page(
        self, query: DeliveryQuery, *, after: str = "", limit: int = 100, most_bytes: int = 1 << 20
    ) -> tuple[list[Delivery], str | None]:
        """As `Deliveries.page`. A page may be empty and have a cursor. Raises ValueError for a bad cursor."""
        check_cursor(after)
        merge = await self._merge(query, after)
        found: list[Delivery] = []
        looked, looked_bytes = 0, MOST_LOOKED_BYTES
        at_once = READ_AT_ONCE if query.cvm else min(READ_AT_ONCE, limit)
        while looked < MOST_LOOKED and (rows := await merge.take(at_once)):
            looked += len(rows)
            loaded = {each.id: each for each in await self._deliveries.load([delivery_id for _, delivery_id in rows])}
            for stamp, delivery_id in rows:
                if (delivery := loaded.get(delivery_id)) is None:
                    continue
                looked_bytes -= delivery.size
                if query.lets_through(delivery):
                    found.append(delivery)
                    most_bytes -= delivery.size
                if len(found) == limit or most_bytes <= 0 or looked_bytes <= 0:
                    is_last = stamp == rows[-1][0] and not merge.heap
                    return found, None if is_last else str(stamp)
        return found, str(merge.taken) if merge.heap else None

    async def _merge(self, query: DeliveryQuery, after: str) -> _Merge:
        highest = int(after or LEAST_TOO_HIGH)
        if query.until_ms is not None:
            highest = min(highest, (query.until_ms + 1) * 1000)
        chosen: Sequence[DeliveryStatus] = (query.status,) if query.status else tuple(DELIVERY_STATUSES)
        merge = _Merge(self._deliveries, chosen, (query.since_ms or 0) * 1000, query.event)
        names = ""
        while ids := await self._endpoints.ids(names, HEADS_AT_ONCE):
            given = [self._limits, f"({highest}", merge.lowest, query.event, len(chosen), *chosen, *ids]
            heads = await run_lane_script(self._backend, self._heads, given)
            merge.heap += [(-int(float(head)), each) for head, each in zip(heads, ids, strict=True) if head]
            names = ids[-1]
        heapq.heapify(merge.heap)
        return merge


@dataclass
class _Merge:
    """Rows of all endpoints, newest first. `heap`: the negative stamp of each endpoint's newest row, and its id."""

    deliveries: Deliveries
    statuses: Sequence[DeliveryStatus]
    lowest: int
    event: str
    heap: list[tuple[int, str]] = field(default_factory=list)
    taken: int = 0
    """The stamp of the last row that was taken."""
    _read: dict[str, deque[tuple[int, str]]] = field(default_factory=dict)

    async def take(self, most: int) -> list[tuple[int, str]]:
        """The next (stamp, delivery id), at most `most`; none at the end."""
        found: list[tuple[int, str]] = []
        while self.heap and len(found) < most:
            stamp, endpoint_id = -self.heap[0][0], self.heap[0][1]
            self.taken = stamp
            if self.event:
                found.append((stamp, f"{endpoint_id}-{self.event}"))
                heapq.heappop(self.heap)
                continue
            rows = self._read.get(endpoint_id) or await self._rows(endpoint_id, stamp + 1)
            if rows and rows[0][0] == stamp:
                found.append(rows.popleft())
            following = rows or await self._rows(endpoint_id, stamp)
            self._read[endpoint_id] = following
            if following:
                heapq.heapreplace(self.heap, (-following[0][0], endpoint_id))
            else:
                heapq.heappop(self.heap)
        return found

    async def _rows(self, endpoint_id: str, below: int) -> deque[tuple[int, str]]:
        return deque(await self.deliveries.newest(endpoint_id, self.statuses, str(below), ROWS_AT_ONCE, self.lowest))
