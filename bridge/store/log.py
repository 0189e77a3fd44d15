"""Reading the log: positions, pages, and the snapshots that belong to a position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bridge.events import SEQUENCE_DIGITS, Event, entry_key
from bridge.store.connection import Backend, load_script
from bridge.store.foreign import decimal
from bridge.store.snapshots import Snapshot, read_all

HIGHEST_ID = f"{2**64 - 1}-{2**64 - 1}"
"""No entry can be above it, and Redis refuses to search there."""

READ_BYTES = 1 << 20
"""Of events that a bounded read takes from Redis at once: some hundred of the usual size, or the largest alone."""


@dataclass(frozen=True, slots=True)
class Position:
    """A log's position.

    `id` is its last entry's id, or while it is empty the id of its beginning. `low_water_mark` is the newest entry that
    was trimmed (or the beginning): a cursor below it has missed events. Another `log_id` is another log.
    """

    log_id: str
    sequence: int
    id: str
    low_water_mark: str
    low_water_sequence: int
    trimmed: bool


_META = ("birth", "sequence", "last_id", "floor", "floor_sequence", "trimmed")


def _position(values: list[str | None]) -> Position | None:
    """None also where the record cannot be read: the next term mends it."""
    log_id, sequence, last_id, low_water_mark, low_water_sequence, trimmed = values
    if log_id is None or last_id is None or low_water_mark is None:
        return None
    try:
        numbers = _count(sequence), _count(low_water_sequence)
        entry_key(last_id), entry_key(low_water_mark)
    except ValueError:
        return None
    return Position(log_id, numbers[0], last_id, low_water_mark, numbers[1], trimmed == "1")


def _count(text: str | None) -> int:
    """Raises ValueError if it is not a sequence."""
    count = 0 if text is None else decimal(text, SEQUENCE_DIGITS - 1)
    if count is None:
        raise ValueError("not a sequence")
    return count


class Log:
    """The log's readers' side; any process may use it."""

    _read_log = load_script("read_log")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def position(self) -> Position | None:
        """None if no leader has made a log yet."""
        return _position(await self._backend.call(self._backend.client.hmget(self._backend.keys.meta, list(_META))))

    async def read(self, after: str, count: int) -> list[Event]:
        """At most `count` events with ids above `after`, oldest first."""
        if after == HIGHEST_ID:
            return []
        client, key = self._backend.client, self._backend.keys.log
        return _events(await self._backend.call(client.xrange(key, f"({after}", "+", count)))

    async def read_some(self, after: str, count: int) -> list[Event]:
        """As `read`, but also no more than `READ_BYTES` and one event. Empty only at the log's end."""
        while True:
            flat = await self._backend.run(self._read_log, [self._backend.keys.log], [after, count, READ_BYTES])
            if not flat:
                return []
            if events := _events((entry_id, {"event": text}) for entry_id, text in zip(*[iter(flat)] * 2, strict=True)):
                return events
            after = flat[-2]  # the bridge wrote none of these entries

    async def latest(self, count: int) -> list[Event]:
        """The newest `count` events, oldest first."""
        client, key = self._backend.client, self._backend.keys.log
        return _events(await self._backend.call(client.xrevrange(key, "+", "-", count)))[::-1]

    async def find(self, entry_id: str) -> Event | None:
        """The event with exactly this id, if the log still has it. Raises ValueError if it is not an id."""
        client, key = self._backend.client, self._backend.keys.log
        exact = "{}-{}".format(*entry_key(entry_id))  # Redis takes an id without counter as a range
        found = _events(await self._backend.call(client.xrange(key, exact, exact, 1)))
        return found[0] if found else None

    async def snapshot(self) -> tuple[Position | None, dict[str, Snapshot]]:
        """Position and snapshots as of one moment."""
        meta, snapshots = await read_all(self._backend, "HMGET", self._backend.keys.meta, *_META)
        return _position(meta), snapshots


def _events(entries: Iterable[Any]) -> list[Event]:
    events = []
    for entry_id, fields in entries:
        try:
            events.append(Event.from_log(entry_id, fields["event"]))
        except (ValueError, KeyError, TypeError):
            continue  # the bridge did not write this entry
    return events
