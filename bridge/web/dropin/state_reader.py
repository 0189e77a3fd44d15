"""The state now, for the immediate mode: read from the snapshot, and waited for where nobody has looked yet."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from bridge.events import Event
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.web.http.problems import unavailable

PATIENCE = 10.0
"""Seconds in which a leader that leads has read a new watch's state, even behind a slow upstream."""

LOOK_EVERY = 1.0
"""An event's message is a hint; the snapshot itself is looked at this often."""


class States:
    """Many who wait for a CVM's first observation wait for one event. `heard` and `forget` are the hub's listeners."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        # Held by who waits: the entry goes with the last of them, however it ends.
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._closed = False

    def heard(self, event: Event) -> None:
        if (waiting := self._waiting.pop(event.cvm_id, None)) is not None:
            waiting.set()

    def forget(self) -> None:
        """Whoever waits looks for itself."""
        for waiting in list(self._waiting.values()):
            waiting.set()
        self._waiting.clear()

    def close(self) -> None:
        """Nobody waits any longer: the front end ends."""
        self._closed = True
        self.forget()

    async def get(self, cvm_id: str) -> Snapshot | None:
        """What is known now. Raises StoreError."""
        return (await self._snapshots.get([cvm_id])).get(cvm_id)

    async def first(self, cvm_id: str) -> Snapshot:
        """As soon as there is anything to tell: a state, or why there is none. Raises ProblemError 503, StoreError."""
        return await self.newer(cvm_id, None)

    async def newer(self, cvm_id: str, event_id: str | None) -> Snapshot:
        """What is known once there is more than as of this event. Raises ProblemError 503, StoreError."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not self._closed:
                    # Before looking: an event that comes in between is not missed.
                    waiting = self._waiting.setdefault(cvm_id, asyncio.Event())
                    found = await self.get(cvm_id)
                    if found is not None and _tells(found) and found.event_id != event_id:
                        return found
                    await _wait(waiting)
        except TimeoutError:
            raise unavailable("this CVM's state was not read in time; is `bridge upstream` running?", 5) from None
        raise unavailable("this front end is shutting down")


def _tells(snapshot: Snapshot) -> bool:
    return snapshot.status is not None or not snapshot.fresh


async def _wait(waiting: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_EVERY):
            await waiting.wait()
    except TimeoutError:
        return
