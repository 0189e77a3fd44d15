"""A subscriber as the hub sees it: a filter, a position, and a sink for its bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bridge.web.streaming.sinks import Sink


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscriber begins: after this event; or, with `reset`, anew and told why."""

    sequence: int = 0
    id: str = ""
    reset: str | None = None


Begin = Start | str | int | None
"""Where a client wants to begin: a cursor, a time (Unix milliseconds), or None: with snapshots."""


@dataclass(eq=False, slots=True)
class Subscriber:
    """A filter and a position. None in a filter means all.

    `sequence`/`sent`: last considered and last id sent, until it is live; then its groups know (`web/audience.py`), and
    `file` is where they write to it directly.

    `asked`: whether `cvms` were named by the client, and not only by its token's limit. `settling`: the task that
    brings it to the log's end; without one it is live. `again`: where to start over, set for that task when what it
    follows is no longer to be relied on.
    """

    sink: Sink
    cvms: frozenset[str] | None = None
    types: frozenset[str] | None = None
    snapshots: bool = True
    asked: bool = True
    sequence: int = 0
    sent: int = 0
    live: bool = False
    file: int | None = None
    beat: int = 0
    again: Start | None = None
    settling: asyncio.Task[None] | None = None

    def wants(self, cvm_id: str, kind: str) -> bool:
        return (self.cvms is None or cvm_id in self.cvms) and (self.types is None or kind in self.types)

    def disturbed(self) -> bool:
        """Whether it is to start over."""
        return self.again is not None

    @property
    def demands(self) -> frozenset[str]:
        """The CVMs that are to be followed because of this subscriber."""
        return self.cvms if self.cvms is not None and self.asked else frozenset()
