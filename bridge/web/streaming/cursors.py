"""Finds a client's cursor or time in the log: the result is an event to continue after, or a reset.

Streams and pages of JSON ask here, so that both refuse the same cursors.
"""

from __future__ import annotations

from bridge.events import entry_key
from bridge.store.log import Log
from bridge.web.streaming.subscriber import Begin, Start

HISTORY_LOST = "history_lost"
UNKNOWN_CURSOR = "unknown_cursor"


class Cursors:
    """A bad cursor is a reset, never an error."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def find(self, begin: Begin) -> Start | None:
        """None without a cursor, and for a time while there is no log. Raises StoreError."""
        if isinstance(begin, str):
            return await self.locate(begin)
        return await self.locate_time(begin) if isinstance(begin, int) else begin

    async def locate(self, cursor: str) -> Start:
        """The position of a cursor in the log, or the reset that it gets. Raises StoreError."""
        try:
            key = entry_key(cursor)
        except ValueError:
            return Start(reset=UNKNOWN_CURSOR)
        position = await self._log.position()
        if position is None or "-" not in cursor:
            return Start(reset=UNKNOWN_CURSOR)
        if key == entry_key(position.low_water_mark):
            return Start(position.low_water_sequence, position.low_water_mark)
        if key < entry_key(position.low_water_mark):
            return Start(reset=HISTORY_LOST)
        event = await self._log.find(cursor) if key <= entry_key(position.id) else None
        return Start(event.sequence, event.id) if event else Start(reset=UNKNOWN_CURSOR)

    async def locate_time(self, milliseconds: int) -> Start | None:
        """The position before a Unix time; a reset if events since then were trimmed. Raises StoreError."""
        position = await self._log.position()
        if position is None:
            return None
        before = f"{max(milliseconds - 1, 0)}-{2**64 - 1}"
        if entry_key(before) < entry_key(position.low_water_mark):
            if position.trimmed:
                return Start(reset=HISTORY_LOST)
            return Start(position.low_water_sequence, position.low_water_mark)
        events = await self._log.read(before, 1)
        if not events:
            return Start(position.sequence, position.id)
        # Read again: if the log was trimmed meanwhile, the first event that is left is not the first since that time.
        position = await self._log.position()
        if position is None or entry_key(before) < entry_key(position.low_water_mark):
            return Start(reset=HISTORY_LOST)
        return Start(events[0].sequence - 1, before)
