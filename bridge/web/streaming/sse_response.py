"""The HTTP side of an SSE response: it sends the head and the first bytes, and hands a sink to the stream's owner.

With a server that can detach a connection (`detach.py`) the request's task then ends. With any other server it stays
and passes on what the owner writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from bridge.web.streaming.detach import ABORT, DETACH
from bridge.web.streaming.sinks import AsgiSink, Sink

PAUSE_ABOVE = 64 * 1024
"""Bytes. A replay pauses while more than this, or than half of its buffer, wait for the connection."""

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def with_headers(headers: list[tuple[bytes, bytes]], more: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """`more` are names and values of ASCII; most streams have none."""
    return [*headers, *((name.lower().encode(), value.encode()) for name, value in more.items())] if more else headers


class SseResponse:
    """An ASGI response that ends only when its owner or its client ends it.

    `started` gets the sink after the head and `opening`, and must not wait. `ended` is called exactly once, when the
    connection is gone, even if it never started. `buffer`: bytes that may wait for the connection. HEAD gets the head
    alone.
    """

    def __init__(
        self,
        opening: bytes,
        started: Callable[[Sink], None],
        ended: Callable[[], None],
        *,
        buffer: int,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        self._opening = opening
        self._started = started
        self._ended = ended
        self._pause_above = min(PAUSE_ABOVE, buffer // 2)
        self._headers = HEADERS if headers is None else headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        detached = False
        start = {"type": "http.response.start", "status": 200, "headers": self._headers}
        try:
            if scope["method"] == "HEAD":
                await send(start)
                await send({"type": "http.response.body", "body": b""})
            elif (offer := _offered(scope, DETACH)) is None:
                await send(start)
                await send({"type": "http.response.body", "body": self._opening, "more_body": True})
                await self._hold(scope, receive, send)
            else:
                offer["gather"]()
                await send(start)
                if (sink := offer["call"](self._opening, self._ended, self._pause_above)) is not None:
                    detached = True
                    try:
                        self._started(sink)
                    except BaseException:
                        sink.cut()  # the server would do so after a second head
                        raise
                    sink.flush()
        finally:
            if not detached:
                self._ended()

    async def _hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until the owner or the client ends the stream. If the owner does, the response ends properly."""
        sink = AsgiSink(self._pause_above)
        pump = asyncio.create_task(sink.pump(send), name="sse pump")
        gone = asyncio.create_task(_disconnected(receive), name="sse gone")
        abort = _offered(scope, ABORT)
        sink.abort = abort["call"] if abort else pump.cancel
        try:
            self._started(sink)
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sink.done()
            pump.cancel()
            gone.cancel()
            await asyncio.wait({pump, gone})
        if gone.cancelled() and not pump.cancelled():
            await send({"type": "http.response.body", "body": b""})


def _offered(scope: Scope, extension: str) -> dict[str, Callable[..., Any]] | None:
    found: dict[str, Callable[..., Any]] | None = (scope.get("extensions") or {}).get(extension)
    return found


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
