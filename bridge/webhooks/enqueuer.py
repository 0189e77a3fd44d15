"""Queues events of the log in lanes: exactly once per endpoint that wants them, with any number of dispatchers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from bridge.clock import Clock
from bridge.events import entry_key
from bridge.log_throttle import LogThrottle
from bridge.store.errors import NearlyFullError
from bridge.store.lanes import Checkpoint, Entry, Filled, Lanes, Share
from bridge.store.memory import LEAST_MEMORY
from bridge.webhooks import metrics
from bridge.webhooks.endpoint_cache import EndpointCache

logger = logging.getLogger(__name__)

READ_AT_ONCE = 100
"""Log entries per read; a state has some 700 bytes, but may have a megabyte."""

FILL_AT_ONCE = 500
"""Deliveries per script: some 10 ms, during which the server answers no other client."""

ENOUGH_MEMORY = 0.12
"""With so much it goes on."""

CHECK_EVERY = 1_000
"""Deliveries queued between two looks at the memory: some megabytes at most, unless events are large."""


class Enqueuer:
    """One process's enqueuer; if another has moved the checkpoint meanwhile, Redis refuses and it is read again."""

    def __init__(self, lanes: Lanes, endpoint_cache: EndpointCache, clock: Clock) -> None:
        self._lanes = lanes
        self._log_throttle = LogThrottle(clock)
        self._endpoint_cache = endpoint_cache
        self._checkpoint: Checkpoint | None = None
        self._reported = ""
        self._held = False
        self._queued = 0

    def doubt(self) -> None:
        """Forgets the checkpoint, so that it is read again: on a slow tick, to notice a new log."""
        self._checkpoint = None

    async def catch_up(self) -> bool:
        """Returns at the end of the log: whether the log had anything new. Raises StoreError, NearlyFullError."""
        moved = False
        while await self._step():
            moved = True
        return moved

    async def _step(self) -> bool:
        """Whether there may be more."""
        checkpoint = self._checkpoint or await self._find()
        if checkpoint is None:
            return False
        entries, last_id = await self._lanes.read(checkpoint.id, READ_AT_ONCE)
        if last_id is None:
            self._checkpoint = checkpoint
            return False
        matcher, self._checkpoint = self._endpoint_cache.matcher, None
        # At another revision, the claiming side has read newer endpoints: read the checkpoint again.
        if matcher.revision == checkpoint.revision:
            matched = ((entry, matcher.matching(entry, checkpoint.log_id)) for entry in entries)
            shares, to_id, to_partial = portion(checkpoint, matched, last_id, FILL_AT_ONCE)
            filled = await self._lanes.fill(checkpoint, shares, to_id, to_partial)
            if filled:
                self._queued += filled.queued
                self._checkpoint = (
                    None if self._queued >= CHECK_EVERY else replace(checkpoint, id=to_id, partial=to_partial)
                )
                self._count(filled)
        return True

    async def _find(self) -> Checkpoint | None:
        """None if there is nothing to read: no log, or no endpoint."""
        checkpoint = await self._lanes.checkpoint(at_work=True)
        if checkpoint is None or not (await self._endpoint_cache.at(checkpoint.revision)).endpoints:
            return None
        await self._check_memory()
        # If endpoints changed between the two reads, the script refuses this revision.
        checkpoint = replace(checkpoint, revision=self._endpoint_cache.endpoint_set.revision)
        if checkpoint.trimmed and entry_key(checkpoint.id) < entry_key(checkpoint.low_water_mark):
            return await self._beyond(checkpoint)
        return checkpoint

    async def _check_memory(self) -> None:
        left = await self._lanes.memory_left()
        self._held = left is not None and left < (ENOUGH_MEMORY if self._held else LEAST_MEMORY)
        self._queued = 0
        if self._held:
            raise NearlyFullError

    async def _beyond(self, checkpoint: Checkpoint) -> Checkpoint:
        """Moves a checkpoint that the log was trimmed beyond; a partly queued event is gone, so `partial` ends."""
        if self._reported != checkpoint.low_water_mark:
            metrics.UNQUEUED.inc()
            logger.error("the log was trimmed beyond what webhooks had read", extra={"position": checkpoint.id})
            self._reported = checkpoint.low_water_mark
        moved = await self._lanes.fill(checkpoint, [], checkpoint.low_water_mark, "")
        return replace(checkpoint, id=checkpoint.low_water_mark, partial="") if moved else checkpoint

    def _count(self, filled: Filled) -> None:
        metrics.QUEUED.inc(filled.queued)
        if filled.skipped:
            metrics.SKIPPED.labels("disabled").inc(filled.skipped)
        if filled.beyond:
            metrics.SKIPPED.labels("too many pending").inc(filled.beyond)
            if skipped := self._log_throttle.due("too many pending", filled.beyond):
                logger.error("endpoints have too many pending deliveries", extra={"skipped": skipped})


def portion(
    checkpoint: Checkpoint, matched: Iterable[tuple[Entry, list[str]]], last_id: str, most: int
) -> tuple[list[Share], str, str]:
    """What to queue in one step, at most `most` deliveries, and the checkpoint after it: (shares, id, partial).

    `matched`: the entries above the checkpoint in order, and the endpoints that want them; `last_id`: of the last read.
    """
    shares: list[Share] = []
    done, partial = checkpoint.id, checkpoint.partial
    for entry, endpoints in matched:
        left = [each for each in endpoints if each > partial] if partial else endpoints
        if len(left) > most:
            if most:
                shares.append(Share(entry, left[:most]))
                partial = left[most - 1]
            return shares, done, partial
        if left:
            shares.append(Share(entry, left))
        most -= len(left)
        done, partial = entry.event.id, ""
    return shares, last_id, ""
