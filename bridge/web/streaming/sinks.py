"""Where a subscriber's bytes go, and the sink for servers that cannot let a connection go: plain ASGI."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from starlette.types import Send

from bridge.web.streaming.detach import LAST_WORDS
from bridge.web.streaming.frames import Frame


class Sink(Protocol):
    """An SSE connection's writing side. Only `drained` waits."""

    @property
    def file(self) -> int | None:
        """The number of the file that takes whole chunks directly while nothing waits; None: there is none."""
        ...

    def pass_on(self, rest: bytes) -> None:
        """What the file did not take of a chunk. Not where there is no file."""
        ...

    def offer(self, frame: Frame, most: int) -> bool:
        """One event, as it goes to everybody. False, with nothing written: more than `most` bytes wait already."""
        ...

    def send_all(self, frames: Iterable[Frame]) -> None:
        """Some events in one piece."""
        ...

    def write(self, data: bytes) -> None:
        """Bytes of this connection alone."""
        ...

    def backlog(self) -> int:
        """Bytes written and not yet taken by the connection."""
        ...

    def flush(self) -> None:
        """Sends what waits for the first write to go along."""
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


class AsgiSink:
    """Bytes on their way into ASGI's `send`. Who writes caps what waits here.

    A replay goes on below `low_water`; `abort` ends the connection without waiting for its client.
    """

    def __init__(self, low_water: int) -> None:
        self._low_water = low_water
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
        raise AssertionError("chunks are the server's affair here")

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
        if self._size > self._low_water:
            self._low.clear()
        self._changed.set()

    def backlog(self) -> int:
        return self._size

    def flush(self) -> None: ...

    async def drained(self) -> None:
        await self._low.wait()

    def close(self) -> None:
        if not self._closed:
            self._patience = asyncio.get_running_loop().call_later(LAST_WORDS, self.cut)
        self._closed = True
        self._changed.set()

    def cut(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._low.set()
        self._changed.set()
        self.abort()

    def done(self) -> None:
        """The connection ended: nobody is to be cut any more, and no replay waits for it."""
        self._closed = True
        self._low.set()
        if self._patience is not None:
            self._patience.cancel()

    async def pump(self, send: Send) -> None:
        """Sends what is written until the sink is closed and empty."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                body = b"".join(self._waiting)
                self._waiting.clear()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._size -= len(body)
                if self._size <= self._low_water:
                    self._low.set()
            if self._closed:
                return
