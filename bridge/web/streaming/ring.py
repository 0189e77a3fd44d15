"""The last events, encoded, by sequence: what reconnecting subscribers are served from instead of from Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from bridge.web.streaming.frames import Frame

MOST_FRAMES = 10_000
MOST_BYTES = 32 << 20
"""A herd reconnects within seconds; ten thousand events are minutes of a busy workspace."""


class Ring:
    """Frames of consecutive sequences, the oldest given up first."""

    def __init__(self, most_frames: int = MOST_FRAMES, most_bytes: int = MOST_BYTES) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._order: deque[int] = deque()
        self._frames: dict[int, Frame] = {}
        self._sequences: dict[str, int] = {}
        self._bytes = 0

    def add(self, frame: Frame) -> None:
        """`frame` follows the newest; a gap empties the ring first, for what it holds must be whole."""
        if self._order and frame.sequence != self._order[-1] + 1:
            self.clear()
        self._order.append(frame.sequence)
        self._frames[frame.sequence] = frame
        self._sequences[frame.id] = frame.sequence
        self._bytes += len(frame.chunk)
        while len(self._order) > self._most_frames or (self._bytes > self._most_bytes and len(self._order) > 1):
            self._evict()

    def _evict(self) -> None:
        old = self._frames.pop(self._order.popleft())
        del self._sequences[old.id]
        self._bytes -= len(old.chunk)

    def clear(self) -> None:
        self._order.clear()
        self._frames.clear()
        self._sequences.clear()
        self._bytes = 0

    def sequence_of(self, entry_id: str) -> int | None:
        return self._sequences.get(entry_id)

    def after(self, sequence: int, count: int) -> list[Frame] | None:
        """At most `count` frames from `sequence` + 1 on; None where the ring no longer has the first of them."""
        if not self._order or sequence + 1 < self._order[0]:
            return None
        return list(self._range(sequence + 1, min(sequence + count, self._order[-1])))

    def _range(self, first: int, last: int) -> Iterator[Frame]:
        for sequence in range(first, last + 1):
            yield self._frames[sequence]
