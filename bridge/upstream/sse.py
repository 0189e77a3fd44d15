"""A pure SSE decoder: bytes in, events out (the HTML standard's event stream format).

httpx-sse loses a first line behind a byte order mark, holds a lone CR back, decodes by the header's charset and lets
a line grow without bound. The decoder uses no socket, clock or task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAX_LINE = (1 << 20) + 1024
"""Bytes of one line: the largest allowed state, and its field name."""

MAX_EVENT = MAX_LINE
"""Bytes of one event's data over all its lines."""

_BOM = b"\xef\xbb\xbf"


class OverflowingError(ValueError):
    """a line or an event is longer than any allowed state"""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    event: str
    data: str


class Decoder:
    """Gives the same events however the bytes are cut into chunks. Not usable after OverflowingError."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._first = True
        self._after_cr = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that end within `chunk`. Raises OverflowingError."""
        start = 0
        while start < len(chunk):
            if self._after_cr:
                # The LF of a CRLF whose CR has ended the line already.
                self._after_cr = False
                if chunk[start] == 0x0A:
                    start += 1
                    continue
            end = _line_end(chunk, start)
            self._line += chunk[start : end if end >= 0 else len(chunk)]
            if len(self._line) > MAX_LINE:
                raise OverflowingError(str(OverflowingError.__doc__))
            if end < 0:
                return
            self._after_cr = chunk[end] == 0x0D
            start = end + 1
            line, self._line = bytes(self._line), bytearray()
            if (event := self._take(line)) is not None:
                yield event

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._event = value.decode("utf-8", "replace")
        elif field == b"data":
            self._size += len(value) + 1
            if self._size > MAX_EVENT:
                raise OverflowingError(str(OverflowingError.__doc__))
            self._data.append(value.decode("utf-8", "replace"))
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size = "", [], 0
        return ServerSentEvent(event, "\n".join(data)) if data else None


def _line_end(chunk: bytes, start: int) -> int:
    """Where the next CR or LF is; -1: nowhere."""
    newline = chunk.find(b"\n", start)
    carriage = chunk.find(b"\r", start, newline if newline >= 0 else len(chunk))
    return carriage if carriage >= 0 else newline
