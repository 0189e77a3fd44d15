"""Events as SSE blocks, encoded once for everybody (contract section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from bridge.events import (
    DROPPED,
    FRESH,
    RESET,
    SNAPSHOT,
    STALE,
    STATE,
    TRANSITION,
    Event,
    dumps,
    envelope,
)
from bridge.store.snapshots import Snapshot

NAMES = {
    TRANSITION: "transition",
    STATE: "state",
    STALE: "stale",
    FRESH: "fresh",
    DROPPED: "dropped",
}

RETRY_MS = 3000


def retry_line(milliseconds: int) -> bytes:
    """A bare line: it takes effect at once and makes no event."""
    return f"retry: {milliseconds}\n".encode()


OPENING = retry_line(RETRY_MS)


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of the log, ready to be written: `chunk` is its block as one chunk of an HTTP/1.1 body."""

    sequence: int
    id: str
    type: str
    cvm_id: str
    chunk: bytes

    @property
    def data(self) -> bytes:
        """The block alone, for who frames bodies otherwise."""
        return self.chunk[self.chunk.index(b"\n") + 1 : -2]


def chunk_of(data: bytes) -> bytes:
    """One chunk of an HTTP/1.1 body. Never of nothing: that would be the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def block(event: str, data: str, entry_id: str | None = None) -> bytes:
    """One SSE block; `data` is JSON without line ends."""
    head = f"id: {entry_id}\n" if entry_id else ""
    return f"{head}event: {event}\ndata: {data}\n\n".encode()


def frame(event: Event) -> Frame:
    name = NAMES.get(event.type, event.type.rpartition(".")[2])
    return Frame(event.sequence, event.id, event.type, event.cvm_id, chunk_of(block(name, event.json, event.id)))


@lru_cache(maxsize=8)  # a herd asks for the same one
def position_block(sequence: int, entry_id: str) -> bytes:
    """No news, only a cursor."""
    return block("position", dumps({"sequence": str(sequence)}), entry_id)


def reset_block(reason: str, source: str, now: str, entry_id: str) -> bytes:
    """What came before is no longer to be relied on; snapshots (or a position) follow."""
    data = dumps({"reason": reason})
    return block("reset", envelope(source, RESET, data, event_id=f"{entry_id}/reset", time=now))


def snapshot_json(snapshot: Snapshot, source: str, at: tuple[int, str], *, led: bool) -> str:
    """The envelope of one CVM's last state as of `at` (sequence, id); it is stale while there is no leader."""
    sequence, position = at
    data = {
        "cvm_id": snapshot.cvm_id,
        "name": snapshot.name,
        "from": None,
        "to": snapshot.status,
        **freshness(snapshot, led=led),
        "since": snapshot.since,
        "observed_at": snapshot.observed_at,
    }
    return envelope(
        source,
        SNAPSHOT,
        f'{dumps(data)[:-1]},"state":{snapshot.raw_state or "null"}}}',
        event_id=f"{position}/{snapshot.cvm_id}",
        subject=snapshot.cvm_id,
        time=snapshot.observed_at or snapshot.since,
        sequence=sequence,
    )


def freshness(snapshot: Snapshot, *, led: bool) -> Mapping[str, object]:
    """`fresh` and `stale_reason` as of now: a state that nobody follows is stale whatever Redis says."""
    if not led and snapshot.fresh:
        return {"fresh": False, "stale_reason": "no_leader"}
    return {"fresh": snapshot.fresh, "stale_reason": snapshot.stale_reason}
