"""A subscriber as the hub sees it: a filter, a position, and a sink for its bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol


class Sink(Protocol):
    """Where a subscriber's bytes go. Never blocks."""

    def write(self, data: bytes) -> None: ...

    def backlog(self) -> int:
        """Bytes written and not yet taken by the connection."""
        ...

    async def drained(self) -> None:
        """Returns once the backlog is small: how a replay is paced."""
        ...

    def close(self) -> None:
        """Ends the connection after what was written; more calls do nothing."""
        ...

    def cut(self) -> None:
        """Ends the connection now, whatever waits: its client does not read."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscriber begins: after this event; or, with `reset`, anew and told why."""

    sequence: int = 0
    id: str = ""
    reset: str | None = None


@dataclass(eq=False, slots=True)
class Subscriber:
    """A filter and a position. None in a filter means all; `sequence`/`sent`: last considered and last id sent.

    `asked`: whether `cvms` were named by the client, and not only by its token's limit. `again`: where to start over,
    set together with `attention` when what it followed is no longer to be relied on.
    """

    sink: Sink
    cvms: frozenset[str] | None = None
    types: frozenset[str] | None = None
    snapshots: bool = True
    asked: bool = True
    sequence: int = 0
    sent: int = 0
    again: Start | None = None
    attention: asyncio.Event = field(default_factory=asyncio.Event)

    def wants(self, cvm_id: str, kind: str) -> bool:
        return (self.cvms is None or cvm_id in self.cvms) and (self.types is None or kind in self.types)

    @property
    def demands(self) -> frozenset[str]:
        """The CVMs that are to be followed because of this subscriber."""
        return self.cvms if self.cvms is not None and self.asked else frozenset()

    def start_over(self, start: Start) -> None:
        self.again = start
        self.attention.set()
