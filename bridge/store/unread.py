"""What of the log no dispatcher has queued yet: it waits for endpoints although no lane has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bridge.events import entry_key
from bridge.store.connection import Backend
from bridge.store.endpoint_record import Endpoint
from bridge.store.errors import StoreError, StoreUnavailableError
from bridge.store.lanes import Entry, Lanes
from bridge.store.limits import LaneLimits

READ_AT_ONCE = 100
MOST_READ = 2_000
"""Events that a caller who asks how many wait has read: the answer is at least right about them."""

MOST_BYTES = 4_000_000
"""The same in bytes of events."""


@dataclass(frozen=True, slots=True)
class Unread:
    """`entries`: the first ones above the checkpoint; `partial`: the first is queued for endpoints up to this id."""

    log_id: str = ""
    partial: str = ""
    entries: Sequence[Entry] = ()

    def count(self, endpoint: Endpoint) -> int:
        """Those that will be queued for this endpoint. What a disabled one would get is skipped instead."""
        if not endpoint.enabled:
            return 0
        begun = 1 if self.partial and endpoint.id <= self.partial else 0
        return sum(1 for _ in wanted(endpoint, self.log_id, self.entries[begun:], None))


async def read_unread(backend: Backend, limits: LaneLimits) -> Unread:
    """Nothing if Redis refuses to read the log, as one of another type: endpoints are shown and changed nevertheless.

    Raises StoreUnavailableError.
    """
    try:
        return await _read(backend, limits)
    except StoreUnavailableError:
        raise
    except StoreError:
        return Unread()


async def _read(backend: Backend, limits: LaneLimits) -> Unread:
    lanes, found = Lanes(backend, limits), list[Entry]()
    checkpoint = await lanes.checkpoint()
    after = checkpoint.id if checkpoint else ""
    size = 0
    while checkpoint and len(found) < MOST_READ and size < MOST_BYTES:
        entries, last = await lanes.read(after, READ_AT_ONCE)
        if last is None:
            break
        found += entries
        size += sum(len(entry.event.json) for entry in entries)
        after = last
    return Unread(checkpoint.log_id, checkpoint.partial, found) if checkpoint else Unread()


def wanted(endpoint: Endpoint, log_id: str, entries: Sequence[Entry], until_ms: int | None) -> Iterator[Entry]:
    """Those of the entries that the endpoint gets: newer than itself, let through by its filters, up to that time."""
    for entry in entries:
        event = entry.event
        if is_past(entry, until_ms):
            return
        old = endpoint.created_log_id == log_id and entry_key(event.id) <= entry_key(endpoint.created_after)
        if not old and endpoint.wants(event, entry.from_, entry.to, entry.ready):
            yield entry


def is_past(entry: Entry, until_ms: int | None) -> bool:
    return until_ms is not None and entry_key(entry.event.id)[0] > until_ms
