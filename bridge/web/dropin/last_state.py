"""What the bridge knows of one CVM, from its snapshot and the events after it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime

from bridge.events import DELETED, DROPPED, STALE, STATE, TRANSITION, Event, entry_key
from bridge.store.snapshots import Snapshot
from bridge.web.dropin import wire

VOUCHED_FOR = 10.0
"""Seconds for which an observation speaks for itself (contract section 2): so long nobody needs to hear a leader."""

NO_LEADER = "no_leader"


@dataclass(frozen=True, slots=True)
class Known:
    """One CVM's last state. `block` is its `state` event, empty without one; `observed_at` is Unix seconds.

    `stale`: why nobody vouches for it, None while somebody does. As of the event `event_id`.
    """

    block: bytes = b""
    status: str | None = None
    observed_at: float = 0.0
    event_id: str = "0-0"
    stale: str | None = None

    @property
    def seen(self) -> bool:
        return self.status is not None

    @property
    def gone(self) -> bool:
        """Upstream has said 404; a state whose status reads `deleted` is a state."""
        return self.status == DELETED and not self.block

    def doubt(self, *, led: bool, now: float) -> str | None:
        """Why this is not to be told as the state of now; None where it may be. `now` is Unix seconds."""
        if self.stale is not None:
            return self.stale
        return NO_LEADER if not led and now - self.observed_at > VOUCHED_FOR else None

    def older_than(self, event_id: str) -> bool:
        try:
            return entry_key(event_id) > entry_key(self.event_id)
        except ValueError:
            return False

    def after(self, event: Event) -> Known:
        """As of this event, which is newer. A `watch.fresh` says nothing of the state: see the watchers."""
        if event.type in (STATE, TRANSITION):
            return _seen(event)
        if event.type == STALE:
            return replace(self, event_id=event.id, stale=_data(event).get("reason") or "unknown")
        if event.type == DROPPED:
            return Known(event_id=event.id)
        return replace(self, event_id=event.id)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Known:
        return cls(
            _block(snapshot.raw_state),
            snapshot.status,
            unix(snapshot.observed_at),
            snapshot.event_id or "0-0",
            None if snapshot.fresh else snapshot.stale_reason or "unknown",
        )


UNSEEN = Known()


def unix(text: str | None) -> float:
    """Seconds of an RFC 3339 time; 0 where there is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0


def _seen(event: Event) -> Known:
    envelope = json.loads(event.json, parse_int=str)
    return Known(_block(raw_state(event)), envelope["data"]["to"], unix(envelope.get("time")), event.id)


def _data(event: Event) -> dict[str, str]:
    data = json.loads(event.json, parse_int=str).get("data")
    return data if isinstance(data, dict) else {}


def _block(raw: str | None) -> bytes:
    return b"" if raw is None else wire.state(raw)


_KEY = '"state":'


def raw_state(event: Event) -> str | None:
    """The state in a `cvm.*` event as upstream wrote it, None once deleted. Quotes inside strings are escaped, so the
    key's first occurrence is the key.
    """
    start = event.json.index(_KEY, event.json.index('"data":')) + len(_KEY)
    value, end = json.JSONDecoder(parse_int=str).raw_decode(event.json, start)
    return None if value is None else event.json[start:end]
