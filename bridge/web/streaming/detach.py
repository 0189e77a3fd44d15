"""Connections without a request, which make ten thousand subscribers cheap.

uvicorn keeps a task, a request cycle, a parser and its headers for every response that has not ended, and an SSE
response may last for days. So the protocol class here offers an ASGI extension: a callable that takes the connection
from uvicorn once the response has begun and returns a `Detached`, which is a transport and three numbers. The ASGI call
may then return. Everything else remains uvicorn's: parsing, headers, all other responses. See
`docs/decisions/003-detached-connections-and-direct-writes.md`.

The extension stands in `scope["extensions"][DETACH]` as `{"gather": gather, "call": detach}`. After `gather()` the
response's start waits when it is sent, to go out in one piece with the first bytes of the body: each write is a system
call of its own, and wakes the client. `detach(opening, on_lost, pause_above)` is called once, after the start was sent.
HTTP/1.0, another server or a test client do not offer it.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from bridge.web.http.http1 import BoundedProtocol, unsent
from bridge.web.streaming.frames import Frame, chunk_of

DETACH = "bridge.detach"
ABORT = "bridge.abort"
"""The extension that ends a connection at once, for responses that do not detach: `{"call": abort}`."""

LAST_CHUNK = b"0\r\n\r\n"

CLOSE_GRACE = 1.0
"""Seconds that a client gets to take its last bytes; after that the connection is cut."""

OnLost = Callable[[], None]


class Detached(asyncio.Protocol):
    """A `sinks.Sink`: a connection in the middle of a chunked response, owned by the code that detached it.

    `on_lost` is called once, when the connection is gone, whichever side ended it. What the client still sends is
    dropped. `first` goes out ahead of the first write, at `flush()` at the latest.
    """

    __slots__ = ("_closed", "_first", "_low", "_on_lost", "_patience", "_transport", "backlog", "file")

    def __init__(self, transport: asyncio.Transport, on_lost: OnLost, first: bytes) -> None:
        self._transport = transport
        self._first = first
        self._on_lost: OnLost | None = on_lost
        self._closed = False
        encrypted = transport.get_extra_info("sslcontext") is not None
        self.file: int | None = None if encrypted else transport.get_extra_info("socket").fileno()
        self._low: asyncio.Event | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.backlog: Callable[[], int] = partial(unsent, transport) if encrypted else transport.get_write_buffer_size

    def _put(self, data: bytes) -> None:
        if self._first:
            data, self._first = self._first + data, b""
        self._transport.write(data)

    def flush(self) -> None:
        if self._first and not self._closed:
            self._put(b"")

    # The sink

    def offer(self, frame: Frame, most: int) -> bool:
        if self.backlog() > most:
            return False
        if not self._closed:
            self._put(frame.chunk)
        return True

    def pass_on(self, rest: bytes) -> None:
        if not self._closed:
            self._put(rest)

    def send_all(self, frames: Iterable[Frame]) -> None:
        if not self._closed and (chunks := b"".join([frame.chunk for frame in frames])):
            self._put(chunks)

    def write(self, data: bytes) -> None:
        if not self._closed and data:
            self._put(chunk_of(data))

    async def drained(self) -> None:
        if self._low is not None:
            await self._low.wait()

    def close(self) -> None:
        if self._closed:
            return
        self._put(LAST_CHUNK)
        self._closed = True
        self._transport.close()
        if self.backlog():
            self._patience = asyncio.get_running_loop().call_later(CLOSE_GRACE, self._transport.abort)

    def cut(self) -> None:
        self._closed = True
        self._transport.abort()

    # The transport's side

    def pause_writing(self) -> None:
        self._low = self._low or asyncio.Event()

    def resume_writing(self) -> None:
        if self._low is not None:
            self._low.set()
            self._low = None

    def data_received(self, data: bytes) -> None:
        """Dropped: the request is long over."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._patience is not None:
            self._patience.cancel()
        self.resume_writing()
        if self._on_lost is not None:
            on_lost, self._on_lost = self._on_lost, None
            on_lost()


def write_directly(files: Iterable[int], chunk: bytes) -> list[tuple[int, int]]:
    """Writes one chunk to many connections; returns those that did not take all of it, each with the bytes taken.

    This is the hot loop: ten thousand rounds for one event. It uses nothing of a subscriber but its file descriptor,
    because a walk over ten thousand Python objects costs a quarter of the system calls' own time in cache misses.

    The caller makes sure that nothing waits in a file's transport, and that the descriptor still belongs to its
    connection: both event loops call `connection_lost` before they close a file. A broken connection counts as one that
    took nothing; its transport will find out.
    """
    size, write = len(chunk), os.write
    short: list[tuple[int, int]] = []
    for file in files:
        try:
            taken = write(file, chunk)
        except OSError:
            taken = 0
        if taken != size:
            short.append((file, taken))
    return short


class _Gathered:
    """Stands in for the transport while a response's first bytes are gathered."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        """The response failed before its connection was detached."""
        self._transport.write(self.data)
        self._transport.close()


class Http1Protocol(BoundedProtocol):
    """Offers the extensions. It relies on uvicorn's internals; the tests watch those."""

    _earlier: deque[Any] | None = None
    """Pipelined requests before the last one; those that have ended are removed when another comes."""

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        # The request's task was made in there, and has not run yet.
        self._offer()
        if before is None or before.response_complete:
            return
        self._earlier = self._earlier or deque()
        while self._earlier and self._earlier[0].response_complete:
            self._earlier.popleft()
        self._earlier.append(before)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn notifies the last request only, but the first of a pipeline is the one that runs.
        for cycle in self._earlier or ():
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()
        super().connection_lost(exc)
        self._earlier = None

    def _offer(self) -> None:
        if self.cycle is None:  # not a request
            return
        extensions = self.scope.setdefault("extensions", {})
        extensions[ABORT] = {"call": self.transport.abort}
        if self.scope.get("http_version", "1.1") == "1.1":
            # Not `self.cycle` at the time of the call: it may belong to a request pipelined behind this one. And a weak
            # reference, or each request would be a reference cycle.
            made = weakref.ref(self.cycle)
            extensions[DETACH] = {"gather": partial(self._gather, made), "call": partial(self._detach, made)}

    def _gather(self, made: weakref.ref[Any]) -> None:
        cycle: Any = made()
        cycle.transport = _Gathered(self.transport)

    def _detach(self, made: weakref.ref[Any], opening: bytes, on_lost: OnLost, pause_above: int) -> Detached | None:
        """None if the connection is gone already. A replay pauses while more than `pause_above` bytes wait.

        The body is in chunks, because the response has no length.
        """
        cycle: Any = made()
        # For uvicorn the response has ended and the connection is not its own, so its shutdown does not wait for it.
        cycle.response_complete = True
        if cycle.disconnected or self.transport.is_closing():
            return None
        cycle.message_event.set()
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self._waiting.end(self)
        detached = Detached(self.transport, on_lost, cycle.transport.data + (chunk_of(opening) if opening else b""))
        if self.flow.write_paused:
            detached.pause_writing()
        self.flow.resume_reading()  # only reading notices that the client has gone
        self.transport.set_protocol(detached)
        self.transport.set_write_buffer_limits(pause_above)
        cycle.scope.pop("extensions", None)
        self._forget()
        return detached

    def _forget(self) -> None:
        """Breaks the reference cycles, so that all of this is freed now and not by the garbage collector."""
        self.scope = self.cycle = self.parser = self._earlier = None
        self.pipeline.clear()
        self.headers = []
