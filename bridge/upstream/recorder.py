"""From observations to the log: one at a time, in order, and finished when Redis has confirmed the write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from bridge.clock import Clock, rfc3339
from bridge.events import DROPPED, Draft, watch_data
from bridge.store.confirmations import Confirmations
from bridge.store.errors import StillWantedError, StoreUnavailableError
from bridge.store.leadership import Term
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.upstream import metrics
from bridge.upstream.changes import Step, grow_stale, is_late, observe
from bridge.upstream.stored_snapshots import StoredSnapshots
from bridge.upstream.tracked import Observation, Tracked

logger = logging.getLogger(__name__)

RETRY_EVERY = 0.2
"""Seconds between two tries of a write while Redis does not answer; the lease bounds them."""


class Recorder:
    """Writes one term's events. Methods return when Redis has the event, and raise FencedError when the term is over.

    The lock makes the order of decisions the order of the log.
    """

    def __init__(
        self, log_writer: LogWriter, confirmations: Confirmations, term: Term, clock: Clock, written: WritePosition
    ) -> None:
        self._log_writer = log_writer
        self._confirmations = confirmations
        self._stored = StoredSnapshots()
        self._term = term
        self._clock = clock
        self._lock = asyncio.Lock()
        self.written = written

    async def record(self, tracked: Tracked, observation: Observation) -> bool:
        """Applies an observation. False: it was late, or the watch has ended, and nothing changed."""
        async with self._lock:
            seen = tracked.seen
            if seen.dropped or is_late(tracked, observation):
                return False
            since = seen.snapshot.since if seen.snapshot else None
            steps, after = observe(tracked, observation, rfc3339(self._clock.time()))
            for step in steps:
                await self._append(tracked, step)
            seen.apply(observation, after, changed=after.since != since)
            tracked.absence.settle()
            self._confirmed(tracked)
            return True

    async def confirm(self, tracked: Tracked, made_at: float) -> None:
        """Nothing has changed, as an unchanged batch answer shows; not where the state route finds no such CVM."""
        async with self._lock:
            snapshot = None if tracked.absence.is_missing else tracked.seen.snapshot
            if tracked.seen.dropped or snapshot is None or not snapshot.fresh or made_at < tracked.seen.made_at:
                return
            observed_at = rfc3339(self._clock.time() - self._clock.monotonic() + made_at)
            tracked.seen.snapshot, tracked.seen.confirmed_at = replace(snapshot, observed_at=observed_at), made_at
            self._confirmed(tracked)

    async def mark_stale(self, tracked: Tracked, reason: str) -> None:
        """Makes the watch stale, unless it is."""
        async with self._lock:
            step = grow_stale(tracked, reason, rfc3339(self._clock.time()))
            if step is not None and not tracked.seen.dropped:
                await self._append(tracked, step)
                logger.warning("watch is stale", extra={"cvm_id": tracked.cvm_id, "reason": reason})

    async def drop(self, tracked: Tracked, wanted_before_ms: int) -> bool:
        """Ends the watch. False: there is new demand for it."""
        async with self._lock:
            data = watch_data(tracked.cvm_id, tracked.seen.snapshot.name if tracked.seen.snapshot else None)
            draft = Draft(DROPPED, tracked.cvm_id, rfc3339(self._clock.time()), data)
            try:
                await self._write(tracked, lambda at: self._log_writer.drop(self._term, at, draft, wanted_before_ms))
            except StillWantedError:
                return False
            tracked.seen.dropped = True
            self._confirmations.forget(tracked.cvm_id)
            self._stored.forget(tracked.cvm_id)
            return True

    async def flush(self) -> None:
        """Writes what was confirmed since the last flush, and a snapshot that has grown old. Raises
        StoreUnavailableError."""
        now = self._clock.monotonic()
        await self._confirmations.write(self._clock.time(), now)
        if snapshot := self._stored.due(now):
            await self._log_writer.refresh(self._term, [snapshot])

    def _confirmed(self, tracked: Tracked) -> None:
        self._confirmations.add(tracked.cvm_id, tracked.seen.confirmed_at)
        self._stored.confirmed(tracked, self._clock.monotonic())

    async def _append(self, tracked: Tracked, step: Step) -> None:
        append = self._log_writer.append
        await self._write(tracked, lambda at: append(self._term, at, step.draft, step.snapshot, ran=step.ran))
        tracked.seen.snapshot = replace(step.snapshot, event_id=self.written.last_id)
        self._stored.stored(tracked, self._clock.monotonic())
        metrics.EVENTS.labels(step.draft.type).inc()

    async def _write(self, tracked: Tracked, write: Callable[[WritePosition], Awaitable[WritePosition]]) -> None:
        """Tries until Redis answers."""
        while True:
            try:
                self.written = await write(self.written)
                break
            except StoreUnavailableError:
                await self._clock.sleep(RETRY_EVERY)
