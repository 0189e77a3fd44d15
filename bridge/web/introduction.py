"""What a subscriber without a cursor begins with: the snapshots of its scope, encoded once for everybody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property

from bridge.clock import Clock
from bridge.store.log import Log, Position
from bridge.store.snapshots import Snapshot
from bridge.web.frames import block, snapshot_json

MOST_AGE = 1.0
"""Seconds: between events only `observed_at` moves, and it is to be no older than this."""

NOWHERE = Position("", 0, "0-0", "0-0", 0, False)
"""The position of a log that no leader has made yet."""


@dataclass(frozen=True)
class Introduction:
    """The snapshots as of `position`: a block by CVM, ascending, none of them with its `id:` line."""

    position: Position
    led: bool
    made_at: float
    blocks: dict[str, bytes]

    def of(self, scope: frozenset[str] | None) -> bytes:
        """The blocks of a scope, the last one with the cursor; empty where there is none."""
        if scope is None:
            return self._whole
        return self._joined([block for cvm_id, block in self.blocks.items() if cvm_id in scope])

    @cached_property
    def _whole(self) -> bytes:
        return self._joined(list(self.blocks.values()))

    def _joined(self, chosen: list[bytes]) -> bytes:
        if not chosen:
            return b""
        return b"".join([*chosen[:-1], f"id: {self.position.id}\n".encode(), chosen[-1]])


class Introductions:
    """The last one made, for as long as it is true."""

    def __init__(self, log: Log, source: str, clock: Clock) -> None:
        self._log = log
        self._source = source
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last: Introduction | None = None

    def current(self, birth: str, sequence: int, *, led: bool) -> Introduction | None:
        """At once, where the last one made still holds at this position."""
        last = self._last
        if last is None or (last.position.birth, last.position.sequence, last.led) != (birth, sequence, led):
            return None
        return last if self._clock.monotonic() - last.made_at <= MOST_AGE else None

    async def get(self, birth: str, sequence: int, *, led: bool) -> Introduction:
        """Reads the states at most once for all who ask at the same moment. Raises StoreError."""
        async with self._lock:
            found = self.current(birth, sequence, led=led)
            if found is None:
                found = self._last = await self._make(led)
            return found

    async def _make(self, led: bool) -> Introduction:
        now = self._clock.monotonic()
        position, snapshots = await self._log.snapshot()
        if position is None:
            return Introduction(NOWHERE, led, now, {})
        return Introduction(position, led, now, self._encode(position, snapshots, led))

    def _encode(self, position: Position, snapshots: dict[str, Snapshot], led: bool) -> dict[str, bytes]:
        at = (position.sequence, position.id)
        return {
            cvm_id: block("snapshot", snapshot_json(snapshots[cvm_id], self._source, at, led=led))
            for cvm_id in sorted(snapshots)
        }
