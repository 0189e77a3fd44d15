"""One CVM's last state, from its snapshot and the events after it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from bridge.clock import unix
from bridge.events import DELETED, DROPPED, NO_LEADER, STALE, STATE, TRANSITION, Event, entry_key
from bridge.store.snapshots import Snapshot
from bridge.web.streaming.frames import block

VOUCHED_FOR = 10.0
"""Seconds for which an observation counts without a leader (`docs/contract.md#the-event`, on stale watches)."""


@dataclass(frozen=True, slots=True)
class LastState:
    """As of the event `event_id`. `block` is its SSE event, empty if there is no state; `observed_at` is Unix seconds.

    `stale`: why the bridge cannot vouch for it; None while it can.
    """

    block: bytes = b""
    status: str | None = None
    observed_at: float = 0.0
    event_id: str = "0-0"
    stale: str | None = None
    app_id: str | None = None
    name: str | None = None

    @property
    def gone(self) -> bool:
        """Whether upstream answered 404. A state that has the status `deleted` is another thing."""
        return self.status == DELETED and not self.block

    def stale_reason(self, *, led: bool, now: float) -> str | None:
        """Why this must not be given out as the current state; None if it may. `now` is Unix seconds."""
        if self.stale is not None:
            return self.stale
        return NO_LEADER if not led and now - self.observed_at > VOUCHED_FOR else None

    def older_than(self, event_id: str) -> bool:
        try:
            return entry_key(event_id) > entry_key(self.event_id)
        except ValueError:
            return False

    def after(self, event: Event) -> LastState:
        """As of this event, which is newer. Raises ValueError, LookupError or TypeError if no bridge wrote it.

        A `watch.fresh` leaves `stale` as it is: see `Watchers.on_event`.
        """
        if event.type in (STATE, TRANSITION):
            envelope = json.loads(event.json, parse_int=str)
            status, observed_at = envelope["data"]["to"], unix(envelope.get("time"))
            return LastState(
                _block(raw_state(event)), status, observed_at, event.id, app_id=event.app_id, name=event.name
            )
        if event.type == STALE:
            data = json.loads(event.json, parse_int=str).get("data")
            reason = data.get("reason") if isinstance(data, dict) else None
            return replace(self, event_id=event.id, stale=reason or "unknown")
        if event.type == DROPPED:
            return LastState(event_id=event.id)
        return replace(self, event_id=event.id)

    @classmethod
    def of(cls, snapshot: Snapshot) -> LastState:
        return cls(
            _block(snapshot.raw_state),
            snapshot.status,
            unix(snapshot.observed_at),
            snapshot.event_id or "0-0",
            None if snapshot.fresh else snapshot.stale_reason or "unknown",
            snapshot.app_id,
            snapshot.name,
        )


UNSEEN = LastState()


def _block(raw: str | None) -> bytes:
    """`raw` is upstream's JSON, on one line."""
    return b"" if raw is None else block("state", raw)


_KEY = '"state":'


def raw_state(event: Event) -> str | None:
    """The state in a `cvm.*` event as upstream wrote it, None once deleted.

    Quotes inside strings are escaped, so the first occurrence of the key is the key itself.
    """
    start = event.json.index(_KEY, event.json.index('"data":')) + len(_KEY)
    value, end = json.JSONDecoder(parse_int=str).raw_decode(event.json, start)
    return None if value is None else event.json[start:end]
