"""The snapshots with which a subscriber without a cursor begins, encoded once for all subscribers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from bridge.clock import Clock
from bridge.cvm_scope import EVERY_CVM, CvmIdentity, CvmScope
from bridge.store.log import Log, Position
from bridge.web.streaming.frames import snapshot_block
from bridge.web.streaming.shared_read import SharedRead

MOST_AGE = 10.0
"""Seconds for which one is given to further subscribers, with the events since then. Longer, and `observed_at` would be
older than a CVM that is confirmed as usual."""

MOST_SCOPES = 64
"""Whose CVMs are remembered: scopes with sets that subscribers of one initial snapshot have."""

NOWHERE = Position("", 0, "0-0", "0-0", 0, False)
"""The position of a log that no leader has made yet."""


@dataclass(frozen=True)
class InitialSnapshot:
    """The snapshots as of `position`: one SSE block for each CVM, by ascending id, without `id:` lines."""

    position: Position
    led: bool
    made_at: float
    blocks: dict[str, bytes]
    cvms: Mapping[str, CvmIdentity] = field(default_factory=dict)
    _found: dict[CvmScope, list[str]] = field(default_factory=dict)
    """The ids that were found for scopes with sets, because many subscribers come with the same few."""

    def of(self, scope: CvmScope) -> bytes:
        """The blocks of a scope, the last one with the cursor as its `id:`; empty if there are none."""
        return self._whole if scope.is_every else self._joined(self._chosen(scope))

    def pieces(self, scope: CvmScope, size: int) -> Iterator[bytes]:
        """As `of`, in pieces of whole blocks of about `size` bytes: a large scope is not copied at once."""
        chosen = self._chosen(scope)
        first = 0
        while first < len(chosen):
            last, length = first, 0
            while last < len(chosen) and length < size:
                length += len(chosen[last])
                last += 1
            yield b"".join(chosen[first:last]) if last < len(chosen) else self._joined(chosen[first:])
            first = last

    def _chosen(self, scope: CvmScope) -> list[bytes]:
        if scope.is_every:
            return list(self.blocks.values())
        if (fixed := scope.cvm_ids) is not None:
            return [self.blocks[cvm_id] for cvm_id in sorted(fixed) if cvm_id in self.blocks]
        if scope not in self._found:
            if len(self._found) >= MOST_SCOPES:
                self._found.clear()
            self._found[scope] = [cvm_id for cvm_id in self.blocks if scope.has(self.cvms[cvm_id])]
        return [self.blocks[cvm_id] for cvm_id in self._found[scope]]

    @cached_property
    def _whole(self) -> bytes:
        return self._joined(self._chosen(EVERY_CVM))

    def _joined(self, chosen: list[bytes]) -> bytes:
        if not chosen:
            return b""
        return b"".join([*chosen[:-1], f"id: {self.position.id}\n".encode(), chosen[-1]])


class InitialSnapshots:
    """Makes the initial snapshot and keeps the last one while it is valid: the log has what happened since."""

    def __init__(self, log: Log, source: str, clock: Clock) -> None:
        self._log = log
        self._source = source
        self._clock = clock
        self._last: InitialSnapshot | None = None
        self._histories = 0
        self._led = False
        self._shared = SharedRead(self._make)

    def current(self, log_id: str, *, led: bool) -> InitialSnapshot | None:
        """The last one made, if it is of this history of the log and recent."""
        last = self._last
        if last is None or (last.position.log_id, last.led) != (log_id, led):
            return None
        return last if self._clock.monotonic() - last.made_at <= MOST_AGE else None

    async def get(self, log_id: str, *, led: bool) -> InitialSnapshot:
        """The current one, or one read after this call: one read serves all callers that wait. Raises StoreError."""
        self._led = led
        return self.current(log_id, led=led) or await self._shared.get()

    def forget(self) -> None:
        """Another history of the log begins: what was read of the one before is not kept."""
        self._last = None
        self._histories += 1

    async def _make(self) -> InitialSnapshot:
        now, led, history = self._clock.monotonic(), self._led, self._histories
        position, snapshots = await self._log.snapshot()
        if position is None:
            return InitialSnapshot(NOWHERE, led, now, {})
        at = (position.sequence, position.id)
        ids = sorted(snapshots)
        blocks = {cvm_id: snapshot_block(snapshots[cvm_id], self._source, at, led=led) for cvm_id in ids}
        cvms = {each: CvmIdentity(each, snapshots[each].app_id, snapshots[each].name) for each in ids}
        made = InitialSnapshot(position, led, now, blocks, cvms)
        if history == self._histories:
            self._last = made
        return made
