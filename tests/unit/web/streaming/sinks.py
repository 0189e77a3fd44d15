"""The common part of the fake sinks."""

from __future__ import annotations

from bridge.web.streaming.frames import Frame


class PlainSink:
    """A sink without a file; subclasses define what happens to the bytes."""

    file: int | None = None

    def pass_on(self, rest: bytes) -> None:
        raise AssertionError("there is no file")

    def offer(self, frame: Frame, most: int) -> bool:
        if self.backlog() > most:
            return False
        self.write(frame.data)
        return True

    def flush(self) -> None: ...

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def backlog(self) -> int:
        raise NotImplementedError
