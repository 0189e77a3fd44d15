"""The SSE connection: a plain ASGI callable that parks on the hub until the client or the bridge ends it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from bridge.config import Settings
from bridge.store.errors import StoreError
from bridge.web.frames import OPENING, retry_line
from bridge.web.hub import Hub
from bridge.web.subscriber import Start, Subscriber

logger = logging.getLogger(__name__)

LOW_WATER = 64 * 1024
"""Bytes waiting below which a replay goes on."""

LAST_WORDS = 1.0
"""Seconds in which a client takes its last bytes; one that does not is cut, or it would hold its connection."""

ABORT = "bridge.abort"
"""The ASGI extension by which a server offers to end a connection at once: `call`."""

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class AsgiSink:
    """A subscriber's bytes on their way into ASGI's `send`. The hub caps what waits here.

    A replay goes on below `low_water`; `abort` ends the connection without waiting for its client.
    """

    def __init__(self, low_water: int = LOW_WATER) -> None:
        self._low_water = low_water
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._low = asyncio.Event()
        self._low.set()
        self._patience: asyncio.TimerHandle | None = None
        self.abort: Callable[[], object] = lambda: None

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > self._low_water:
            self._low.clear()
        self._changed.set()

    def backlog(self) -> int:
        return self._size

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
        self._changed.set()
        self.abort()

    def done(self) -> None:
        """The connection ended: nobody is to be cut any more."""
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


@dataclass(slots=True)
class Subscription:
    """What a request asked for: a subscriber's filter and where to start. None: with snapshots."""

    cvms: frozenset[str] | None
    types: frozenset[str] | None
    snapshots: bool
    start: Start | None
    asked: bool


class EventStream:
    """The response to one subscription."""

    def __init__(self, hub: Hub, wanted: Subscription, *, settings: Settings, chance: random.Random) -> None:
        self._hub = hub
        self._wanted = wanted
        self._chance = chance
        self._low_water = min(LOW_WATER, settings.subscriber_buffer // 2)
        max_age = settings.subscriber_max_age
        # 80 to 100 % of the age, so that subscribers of one herd do not come back as a herd.
        self._max_age = max_age * (0.8 + 0.2 * chance.random()) if max_age else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.body", "body": OPENING, "more_body": True})
        sink = AsgiSink(self._low_water)
        wanted = self._wanted
        subscriber = Subscriber(sink, wanted.cvms, wanted.types, wanted.snapshots, wanted.asked)
        self._hub.enter(subscriber)
        try:
            if await self._race(subscriber, sink, scope, receive, send):
                await send({"type": "http.response.body", "body": b""})
        finally:
            sink.done()
            self._hub.leave(subscriber)

    async def _race(self, subscriber: Subscriber, sink: AsgiSink, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whoever ends first ends all. True: the bridge ended it, and the client has all that was written."""
        pump = asyncio.create_task(sink.pump(send), name="subscriber pump")
        serve = asyncio.create_task(self._serve(subscriber, sink), name="subscriber")
        gone = asyncio.create_task(_disconnected(receive), name="subscriber gone")
        sink.abort = (scope.get("extensions") or {}).get(ABORT, {}).get("call", pump.cancel)
        tasks = {pump, serve, gone}
        try:
            await asyncio.wait({pump, gone}, timeout=self._max_age, return_when=asyncio.FIRST_COMPLETED)
            if not pump.done() and not gone.done():
                sink.write(retry_line(jittered_retry(self._chance)))
                sink.close()
                await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return gone.cancelled() and not pump.cancelled()

    async def _serve(self, subscriber: Subscriber, sink: AsgiSink) -> None:
        # The status is sent already: whatever happens here, the client comes back and finds out more.
        try:
            await self._hub.serve(subscriber, self._wanted.start)
        except StoreError as error:
            logger.info("a subscription ends because Redis cannot be used", extra={"error": str(error)})
            sink.close()
        except Exception:
            logger.exception("a subscription ends by a fault of the bridge")
            sink.close()


def jittered_retry(chance: random.Random) -> int:
    """Milliseconds after which a client is to come back: spread, so that a herd comes back as a trickle."""
    return chance.randint(500, 5000)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
