"""The writing side of an SSE connection, and its implementation for servers that cannot detach one: plain ASGI."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from starlette.types import Send

from bridge.web.streaming.detach import CLOSE_GRACE
from bridge.web.streaming.frames import Frame


class Sink(Protocol):
    """Where a subscriber's bytes go. Only `drained` waits."""

    @property
    def file(self) -> int | None:
        """The file descriptor to which whole chunks may be written while nothing waits; None if there is none."""

    def pass_on(self, rest: bytes) -> None:
        """Writes the part of a chunk that the file did not take. Only for sinks with a file."""

    def offer(self, frame: Frame, most: int) -> bool:
        """Writes one event. False, with nothing written, if more than `most` bytes wait already."""

    def send_all(self, frames: Iterable[Frame]) -> None:
        """Writes some events in one piece."""

    def write(self, data: bytes) -> None:
        """Writes bytes that are for this connection alone."""

    def backlog(self) -> int:
        """Bytes that were written and not yet taken by the connection."""

    def flush(self) -> None:
        """Sends the response's first bytes, which wait for the first write."""

    async def drained(self) -> None:
        """Returns once the backlog is small; this paces a replay."""

    def close(self) -> None:
        """Ends the connection after what was written. Further calls do nothing."""

    def cut(self) -> None:
        """Ends the connection now, without what waits: its client does not read."""


class AsgiSink:
    """A queue of bytes before ASGI's `send`. The writer limits what waits here.

    `drained` waits while more than `pause_above` bytes do. `abort` ends the connection without waiting for its client.
    """

    def __init__(self, pause_above: int) -> None:
        self._pause_above = pause_above
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._low = asyncio.Event()
        self._low.set()
        self._patience: asyncio.TimerHandle | None = None
        self.abort: Callable[[], object] = lambda: None
        self.file = None

    def pass_on(self, rest: bytes) -> None:
        raise AssertionError("only the server writes chunks here")

    def offer(self, frame: Frame, most: int) -> bool:
        if self._size > most:
            return False
        self.write(frame.data)
        return True

    def send_all(self, frames: Iterable[Frame]) -> None:
        self.write(b"".join(frame.data for frame in frames))

    def write(self, data: bytes) -> None:
        if self._closed or not data:
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > self._pause_above:
            self._low.clear()
        self._changed.set()

    def backlog(self) -> int:
        return self._size

    def flush(self) -> None: ...

    async def drained(self) -> None:
        await self._low.wait()

    def close(self) -> None:
        if not self._closed:
            self._patience = asyncio.get_running_loop().call_later(CLOSE_GRACE, self.cut)
        self._closed = True
        self._changed.set()

    def cut(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._low.set()
        self._changed.set()
        self.abort()

    def done(self) -> None:
        """The connection ended: it need not be cut, and no replay waits for it."""
        self._closed = True
        self._low.set()
        if self._patience is not None:
            self._patience.cancel()

    async def pump(self, send: Send) -> None:
        """Sends what is written, until the sink is closed and empty."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                body = b"".join(self._waiting)
                self._waiting.clear()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._size -= len(body)
                if self._size <= self._pause_above:
                    self._low.set()
            if self._closed:
                return
