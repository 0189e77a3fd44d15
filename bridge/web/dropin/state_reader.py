"""The current state, for requests without `target`: read from the snapshot, or awaited if none was read yet."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from bridge.clock import set_within
from bridge.events import Event
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.web.http.problems import unavailable

PATIENCE = 10.0
"""Seconds in which a leader has read a new watch's state, even if upstream is slow."""

LOOK_EVERY = 1.0
"""Seconds. A published event is only a hint: the snapshot is looked at this often without one."""


class StateReader:
    """Callers that wait for one CVM share one asyncio.Event. The hub calls `on_event` and `on_reset`."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        # The waiting callers hold the values: an entry goes with the last of them.
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._closed = False

    def on_event(self, event: Event) -> None:
        if (waiting := self._waiting.pop(event.cvm_id, None)) is not None:
            waiting.set()

    def on_reset(self) -> None:
        """Lets all waiting callers look at the snapshot."""
        for waiting in list(self._waiting.values()):
            waiting.set()
        self._waiting.clear()

    def close(self) -> None:
        """Ends all waiting: the front end stops."""
        self._closed = True
        self.on_reset()

    async def get(self, cvm_id: str) -> Snapshot | None:
        """The snapshot now. Raises StoreError."""
        return (await self._snapshots.get([cvm_id])).get(cvm_id)

    async def wait(self, cvm_id: str, after: str | None = None) -> Snapshot:
        """Waits for a state, or for the reason why there is none; for one with another last event than `after`.

        Raises ProblemError 503, StoreError.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while not self._closed:
                    # Made before the look, so that no event between the two is missed.
                    waiting = self._waiting.setdefault(cvm_id, asyncio.Event())
                    found = await self.get(cvm_id)
                    observed = found is not None and (found.status is not None or not found.fresh)
                    if found is not None and observed and found.event_id != after:
                        return found
                    await set_within(waiting, LOOK_EVERY)
        except TimeoutError:
            raise unavailable("this CVM's state was not read in time; is `bridge upstream` running?", 5) from None
        raise unavailable("this front end is shutting down")
