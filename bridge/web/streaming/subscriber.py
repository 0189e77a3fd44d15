"""A subscriber as the hub sees it: a filter, a position, and a sink for its bytes."""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass

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
    """A filter (`cvms` None: every CVM) and a position. The hub and its replay alone change the fields.

    `sequence` is the last event considered and `sent` the last one sent, until it is live; then its groups in the
    SubscriberIndex have that, and `file` is where they write to it directly. `asked`: the client named the `cvms`, they
    are not only the limit of its `token`. `beat`: its slice of the heartbeats. `replaying`: the task that brings it to
    the log's end. `restart_at`: where that task must begin again, because the history that it follows was lost.
    """

    sink: Sink
    _: KW_ONLY
    cvms: frozenset[str] | None = None
    filter: EventFilter = EVERY_EVENT
    snapshots: bool = True
    asked: bool = True
    token: str = ""
    sequence: int = 0
    sent: int = 0
    live: bool = False
    file: int | None = None
    beat: int = 0
    restart_at: Start | None = None
    replaying: asyncio.Task[None] | None = None

    def wants(self, event: Filterable) -> bool:
        return (self.cvms is None or event.cvm_id in self.cvms) and self.filter.lets_through(event)

    def exceeds(self, allowed: frozenset[str]) -> bool:
        """Whether its scope is another one than its token's `allowed` CVMs would give it now."""
        return self.cvms is None or (not self.cvms <= allowed if self.asked else self.cvms != allowed)

    def must_restart(self) -> bool:
        return self.restart_at is not None

    @property
    def demands(self) -> frozenset[str]:
        """The CVMs that must be watched because of this subscriber."""
        return self.cvms if self.cvms is not None and self.asked else frozenset()
