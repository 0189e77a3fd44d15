"""The last events, encoded, by sequence: reconnecting subscribers are served from here instead of from Redis."""

from __future__ import annotations

from bridge.web.streaming.frames import Frame

MOST_FRAMES = 10_000
MOST_BYTES = 32 << 20
"""Clients that lost their connection are back within seconds; ten thousand events are minutes of a busy workspace."""


class Ring:
    """Frames of consecutive sequences; the oldest are dropped first."""

    def __init__(self, most_frames: int = MOST_FRAMES, most_bytes: int = MOST_BYTES) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self.clear()

    def clear(self) -> None:
        self._oldest, self._newest = 0, -1
        self._frames: dict[int, Frame] = {}
        self._sequences: dict[str, int] = {}
        self._bytes = 0

    def add(self, frame: Frame) -> None:
        """Adds a frame that follows the newest. After a gap the ring begins with this frame, for it has no holes."""
        if not self._frames or frame.sequence != self._newest + 1:
            self.clear()
            self._oldest = frame.sequence
        self._newest = frame.sequence
        self._frames[frame.sequence] = frame
        self._sequences[frame.id] = frame.sequence
        self._bytes += len(frame.chunk)
        while len(self._frames) > self._most_frames or (self._bytes > self._most_bytes and len(self._frames) > 1):
            old = self._frames.pop(self._oldest)
            del self._sequences[old.id]
            self._bytes -= len(old.chunk)
            self._oldest += 1

    def sequence_of(self, entry_id: str) -> int | None:
        return self._sequences.get(entry_id)

    def after(self, sequence: int, count: int) -> list[Frame] | None:
        """At most `count` frames from `sequence` + 1 on; None if the ring no longer has the first of them."""
        if not self._frames or sequence + 1 < self._oldest:
            return None
        return [self._frames[number] for number in range(sequence + 1, min(sequence + count, self._newest) + 1)]
