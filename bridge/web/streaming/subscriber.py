"""A subscriber as the hub sees it: a filter, a position, and a sink for its bytes."""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass, field

from bridge.cvm_scope import EVERY_CVM, CvmScope
from bridge.reference_sets import ReferenceSet
from bridge.web.http.access import LASTING, Credential
from bridge.web.http.event_filter import EVERY_EVENT, EventFilter, Filterable
from bridge.web.streaming.sinks import Sink


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscriber begins: after this event; or, with `reset` (the reason), with a reset and snapshots."""

    sequence: int = 0
    id: str = ""
    reset: str | None = None


Begin = Start | str | int | None
"""Where a subscriber wants to begin: at a cursor (text), at a time (Unix milliseconds), or with snapshots (None)."""


@dataclass(eq=False, slots=True)
class Subscriber:
    """A filter (`scope` and `filter`) and a position. The hub and its replay alone change the fields.

    `sequence` is the last event considered and `sent` the last one sent, until it is live; then its groups in the
    SubscriberIndex have that, and `file` is where they write to it directly. The `limit` of its `scope` is that of its
    `token`; it ends when its `credential` is revoked. `beat`: its slice of the heartbeats. `replaying`: the task that
    brings it to the log's end. `restart_at`: where that task must begin again, because the history that it follows was
    lost.
    """

    sink: Sink
    _: KW_ONLY
    scope: CvmScope = EVERY_CVM
    filter: EventFilter = EVERY_EVENT
    snapshots: bool = True
    token: str = ""
    credential: Credential = LASTING
    sequence: int = 0
    sent: int = 0
    live: bool = False
    file: int | None = None
    beat: int = 0
    restart_at: Start | None = None
    replaying: asyncio.Task[None] | None = None
    cvm_ids: frozenset[str] | None = field(init=False)
    """The CVMs of its scope, where ids alone decide: thousands of replays compare them with each event."""

    def __post_init__(self) -> None:
        self.cvm_ids = self.scope.cvm_ids

    def wants(self, event: Filterable) -> bool:
        if self.cvm_ids is not None:
            return event.cvm_id in self.cvm_ids and self.filter.lets_through(event)
        return (self.scope is EVERY_CVM or self.scope.has(event)) and self.filter.lets_through(event)

    def exceeds(self, allowed: ReferenceSet) -> bool:
        """Whether its scope is another one than its token's `allowed` CVMs would give it now."""
        named, limit = self.scope.named, self.scope.limit
        if named is not None and named.is_fixed and allowed.is_fixed:
            return not named.cvm_ids <= allowed.cvm_ids
        return limit != allowed

    def must_restart(self) -> bool:
        return self.restart_at is not None
