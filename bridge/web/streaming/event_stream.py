"""The response to one subscription: a connection becomes a subscriber of the hub."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from bridge.config import Settings
from bridge.web.http.capacity import Capacity
from bridge.web.streaming.frames import OPENING
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.sinks import Sink
from bridge.web.streaming.sse_response import SseResponse
from bridge.web.streaming.subscriber import Begin, Subscriber


class EventStream:
    """An ASGI response: `subscriber` makes the subscriber of a sink, which enters the hub at `begin`.

    The caller has taken a place in `capacity` for the token `name`; it is released when the stream ends.
    """

    def __init__(
        self,
        hub: Hub,
        capacity: Capacity,
        subscriber: Callable[[Sink], Subscriber],
        begin: Begin,
        *,
        name: str,
        settings: Settings,
        rng: random.Random,
    ) -> None:
        self._hub = hub
        self._capacity = capacity
        self._make = subscriber
        self._begin = begin
        self._name = name
        self._rng = rng
        self._buffer = settings.subscriber_buffer
        self._max_age = settings.subscriber_max_age
        self._subscriber: Subscriber | None = None
        self._ageing: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await SseResponse(OPENING, self._start, self._end, buffer=self._buffer)(scope, receive, send)

    def _start(self, sink: Sink) -> None:
        self._subscriber = self._make(sink)
        if self._max_age:
            # 80 to 100 % of the age, so that subscribers that came together do not return together.
            age = self._max_age * (0.8 + 0.2 * self._rng.random())
            self._ageing = asyncio.get_running_loop().call_later(age, self._expire)
        self._hub.enter(self._subscriber, self._begin)

    def _expire(self) -> None:
        if self._subscriber is not None:
            self._hub.end(self._subscriber, jittered_retry(self._rng))

    def _end(self) -> None:
        if self._ageing is not None:
            self._ageing.cancel()
        if self._subscriber is not None:
            self._hub.leave(self._subscriber)
        self._capacity.release(self._name)


def jittered_retry(rng: random.Random) -> int:
    """Milliseconds after which a client shall come back, spread so that not all return at once."""
    return rng.randint(500, 5000)
