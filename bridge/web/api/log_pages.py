"""Pages of the log as JSON: what a page needs is read, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.events import Event
from bridge.store.log import Log
from bridge.web.http.page_turns import PAGE_BYTES, PageTurns
from bridge.web.http.problems import ProblemError, ProblemType
from bridge.web.streaming.cursors import HISTORY_LOST, UNKNOWN_CURSOR, Cursors
from bridge.web.streaming.subscriber import Begin, Start

READ_EVENTS = 100
"""Events that are read at once: to decode as many of the usual size takes two milliseconds."""

MOST_LOOKED_AT = 5000
LOOKED_AT_BYTES = 8 << 20
"""What one filtered page looks at; the client continues from `next`."""

REFUSALS = {HISTORY_LOST: ProblemType.HISTORY_LOST, UNKNOWN_CURSOR: ProblemType.UNKNOWN_CURSOR}
"""The 410 of a page, by the reason of the `reset` that a stream gets for the same cursor."""


@dataclass(slots=True)
class LogPage:
    """A page while it is filled, from the event after `last` on; `sequence` is that of `last`, None if not known."""

    wants: Callable[[Event], bool]
    limit: int
    last: str
    sequence: int | None
    items: list[str] = field(default_factory=list)
    size: int = 0
    looked_at: int = 0
    looked_at_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return (
            len(self.items) >= self.limit
            or self.size >= PAGE_BYTES
            or self.looked_at >= MOST_LOOKED_AT
            or self.looked_at_bytes >= LOOKED_AT_BYTES
        )

    @property
    def asks_for(self) -> int:
        """Events to read next: one more than is missing, because it tells whether there is another page; many where
        some were not wanted.
        """
        some_skipped = self.looked_at > len(self.items)
        return READ_EVENTS if some_skipped else min(self.limit - len(self.items) + 1, READ_EVENTS)

    def take(self, event: Event) -> bool:
        """False: the page ends before this event, because it is full or because events before this one are lost."""
        if self.is_full or self.sequence not in (None, event.sequence - 1):
            return False
        self.last, self.sequence = event.id, event.sequence
        self.looked_at += 1
        self.looked_at_bytes += len(event.json)
        if self.wants(event):
            self.items.append(event.json)
            self.size += len(event.json)
        return True


class LogPages:
    """A cursor gets a 410 exactly where a stream gets a `reset`."""

    def __init__(self, log: Log, turns: PageTurns) -> None:
        self._log = log
        self._turns = turns
        self._cursors = Cursors(log)

    async def read(
        self, begin: Begin, wants: Callable[[Event], bool], limit: int, *, named: str
    ) -> tuple[list[str], str | None]:
        """Envelopes, oldest first, and the cursor of the next page, None at the log's end.

        `named`: the parameter that `begin` is from. Raises ProblemError (410, 503) or StoreError.
        """
        async with self._turns.take():
            start = await self._start(begin)
            if start.reset is not None:
                raise _refused(start.reset, named)
            page = LogPage(wants, limit, start.id, start.sequence if begin is not None else None)
            return page.items, await self._fill(page, named)

    async def _start(self, begin: Begin) -> Start:
        """Without a cursor or time, and where there is no log, the beginning of what is kept."""
        if (start := await self._cursors.find(begin)) is not None:
            return start
        position = await self._log.position()
        return Start(0, position.low_water_mark if position else "0-0")

    async def _fill(self, page: LogPage, named: str) -> str | None:
        while events := await self._log.read_some(page.last, page.asks_for):
            for event in events:
                if page.take(event):
                    continue
                if not page.looked_at:
                    raise _refused(HISTORY_LOST, named)  # since the cursor was found
                return page.last
        return None


def _refused(reset: str, named: str) -> ProblemError:
    kind = REFUSALS[reset]
    return ProblemError(kind, faults=[(named, kind.title)])
