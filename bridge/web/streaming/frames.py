"""Events as SSE blocks, encoded once for all subscribers (`docs/contract.md#the-sse-stream`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bridge.events import NO_LEADER, POSITION, RESET, SNAPSHOT, SSE_EVENTS, Event, dumps, envelope, sse_event
from bridge.store.snapshots import Snapshot

RETRY_MS = 3000


def retry_line(milliseconds: int) -> bytes:
    """A line without a block: it takes effect at once and is no event."""
    return f"retry: {milliseconds}\n".encode()


OPENING = retry_line(RETRY_MS)


def heartbeat(sequence: int) -> bytes:
    """A comment that tells the position. Without a blank line after it, a client's parser sees no event."""
    return f":{sequence}\n".encode()


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of the log, ready to be written: `chunk` is its block as one chunk of an HTTP/1.1 body."""

    sequence: int
    id: str
    type: str
    cvm_id: str
    chunk: bytes
    app_id: str | None = None
    name: str | None = None

    @property
    def data(self) -> bytes:
        """The block without its chunk, for servers that frame the body themselves."""
        return self.chunk[self.chunk.index(b"\n") + 1 : -2]


def chunk_of(data: bytes) -> bytes:
    """One chunk of an HTTP/1.1 body. `data` must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def block(event: str, data: str, entry_id: str | None = None) -> bytes:
    """One SSE block; `data` is JSON without line ends."""
    head = f"id: {entry_id}\n" if entry_id else ""
    return f"{head}event: {event}\ndata: {data}\n\n".encode()


def frame(event: Event) -> Frame:
    chunk = chunk_of(block(sse_event(event.type), event.json, event.id))
    return Frame(event.sequence, event.id, event.type, event.cvm_id, chunk, event.app_id, event.name)


@lru_cache(maxsize=8)  # many subscribers connect at the same position
def position_block(sequence: int, entry_id: str) -> bytes:
    """No news, only a cursor."""
    return block(POSITION, dumps({"sequence": str(sequence)}), entry_id)


def reset_block(reason: str, source: str, now: str, entry_id: str) -> bytes:
    """The client must forget what it has; snapshots (or a position) follow."""
    data = dumps({"reason": reason})
    return block(SSE_EVENTS[RESET], envelope(source, RESET, data, event_id=f"{entry_id}/reset", time=now))


def snapshot_block(snapshot: Snapshot, source: str, at: tuple[int, str], *, led: bool) -> bytes:
    """One CVM's last state as of `at` (sequence, id), without an `id:` line; it is stale while there is no leader."""
    sequence, position = at
    data = snapshot_data(snapshot, led=led)
    text = envelope(
        source,
        SNAPSHOT,
        f'{dumps(data)[:-1]},"state":{snapshot.raw_state or "null"}}}',
        event_id=f"{position}/{snapshot.cvm_id}",
        subject=snapshot.cvm_id,
        time=snapshot.observed_at or snapshot.since,
        sequence=sequence,
    )
    return block(SSE_EVENTS[SNAPSHOT], text)


def snapshot_data(snapshot: Snapshot, *, led: bool) -> dict[str, Any]:
    """The `data` of a `cvm.snapshot` without its `state`."""
    return {
        "cvm_id": snapshot.cvm_id,
        "name": snapshot.name,
        "app_id": snapshot.app_id,
        "from": None,
        "to": snapshot.status,
        "ready": snapshot.ready,
        "operation": snapshot.readiness.operation_fields(),
        **freshness(snapshot, led=led),
        "since": snapshot.since,
        "observed_at": snapshot.observed_at,
    }


def freshness(snapshot: Snapshot, *, led: bool) -> Mapping[str, object]:
    """`fresh` and `stale_reason` as of now: without a leader every state is stale, whatever the snapshot has."""
    if not led and snapshot.fresh:
        return {"fresh": False, "stale_reason": NO_LEADER}
    return {"fresh": snapshot.fresh, "stale_reason": snapshot.stale_reason}
