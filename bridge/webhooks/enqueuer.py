"""From the log into the lanes: each event exactly once per endpoint that wants it, whoever does it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from bridge.events import entry_key
from bridge.store.lanes import Entry, Filled, Lanes, Place, Share
from bridge.webhooks import metrics
from bridge.webhooks.endpoint_cache import Roll

logger = logging.getLogger(__name__)

READ_AT_ONCE = 100
"""Log entries per read; a state has some 700 bytes, but may have a megabyte."""

FILL_AT_ONCE = 500
"""Deliveries per script: some 10 ms, for which the server answers nobody else."""


class Filler:
    """One process's hand in filling; a place that another has moved meanwhile is refused and read again."""

    def __init__(self, lanes: Lanes, roll: Roll) -> None:
        self._lanes = lanes
        self._roll = roll
        self._place: Place | None = None
        self._reported = ""

    def doubt(self) -> None:
        """What was known of the place is read anew: on a slow tick, so that a log born anew is noticed."""
        self._place = None

    async def catch_up(self) -> None:
        """Returns at the end of the log. Raises StoreError."""
        while await self._step():
            pass

    async def _step(self) -> bool:
        """Whether there may be more."""
        place = self._place or await self._find()
        if place is None:
            return False
        entries, last_id = await self._lanes.read(place.id, READ_AT_ONCE)
        if last_id is None:
            self._place = place
            return False
        matcher, self._place = self._roll.matcher, None
        if matcher.revision == place.revision:  # else the claiming side has met newer endpoints: find the place anew
            matched = ((entry, matcher.matching(entry, place.birth)) for entry in entries)
            shares, to_id, to_partial = portion(place, matched, last_id, FILL_AT_ONCE)
            filled = await self._lanes.fill(place, shares, to_id, to_partial)
            if filled:
                self._place = replace(place, id=to_id, partial=to_partial)
                _count(filled)
        return True

    async def _find(self) -> Place | None:
        """None where there is nothing to read: no log, or nobody who waits for it."""
        place = await self._lanes.place()
        if place is None or not (await self._roll.at(place.revision)).endpoints:
            return None
        # Endpoints that changed between the two reads: the script refuses what was matched with them.
        place = replace(place, revision=self._roll.roster.revision)
        if place.trimmed and entry_key(place.id) < entry_key(place.floor):
            return await self._beyond(place)
        return place

    async def _beyond(self, place: Place) -> Place:
        """The log was trimmed behind the place: what was queued in part is gone, and the next entry is not its rest."""
        if self._reported != place.floor:
            metrics.UNQUEUED.inc()
            logger.error("the log was trimmed beyond what webhooks had read", extra={"position": place.id})
            self._reported = place.floor
        moved = await self._lanes.fill(place, [], place.floor, "")
        return replace(place, id=place.floor, partial="") if moved else place


def _count(filled: Filled) -> None:
    metrics.QUEUED.inc(filled.queued)
    if filled.skipped:
        metrics.SKIPPED.labels("disabled").inc(filled.skipped)
    if filled.beyond:
        metrics.SKIPPED.labels("too many pending").inc(filled.beyond)
        logger.error("an endpoint has too many pending deliveries", extra={"skipped": filled.beyond})


def portion(
    place: Place, matched: Iterable[tuple[Entry, list[str]]], last_id: str, most: int
) -> tuple[list[Share], str, str]:
    """What to queue in one step, at most `most` deliveries, and the place after it: (shares, id, partial).

    `matched`: the entries above the place in order, and who wants them; `last_id`: the last entry read.
    """
    shares: list[Share] = []
    done, partial = place.id, place.partial
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
