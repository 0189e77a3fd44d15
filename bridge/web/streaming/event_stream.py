"""The response to one subscription: a connection becomes a subscriber of the hub."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from bridge.config import Settings
from bridge.web.http.capacity import Capacity
from bridge.web.streaming.frames import OPENING
from bridge.web.streaming.hub import Hub
from bridge.web.streaming.sinks import Sink
from bridge.web.streaming.sse_response import HEADERS, SseResponse, with_headers
from bridge.web.streaming.subscriber import Begin, Subscriber


@dataclass(eq=False, slots=True)
class EventStream:
    """An ASGI response: `subscribe` makes the subscriber of a sink, which enters the hub at `begin`.

    The caller has taken a place in `capacity` for the token `name`; it is released when the stream ends.
    """

    hub: Hub
    capacity: Capacity
    subscribe: Callable[[Sink], Subscriber]
    begin: Begin
    name: str
    settings: Settings
    rng: random.Random
    headers: Mapping[str, str] = field(default_factory=dict)
    _subscriber: Subscriber | None = None
    _ageing: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        buffer = self.settings.subscriber_buffer
        headers = with_headers(HEADERS, self.headers)
        await SseResponse(OPENING, self._start, self._end, buffer=buffer, headers=headers)(scope, receive, send)

    def _start(self, sink: Sink) -> None:
        subscriber = self._subscriber = self.subscribe(sink)
        if max_age := self.settings.subscriber_max_age:
            # 80 to 100 % of the age, so that subscribers that came together do not return together.
            age = max_age * (0.8 + 0.2 * self.rng.random())
            self._ageing = asyncio.get_running_loop().call_later(
                age, lambda: self.hub.end(subscriber, jittered_retry(self.rng))
            )
        self.hub.enter(subscriber, self.begin)

    def _end(self) -> None:
        if self._ageing is not None:
            self._ageing.cancel()
        if self._subscriber is not None:
            self.hub.leave(self._subscriber)
        self.capacity.release(self.name)


def jittered_retry(rng: random.Random) -> int:
    """Milliseconds after which a client shall come back, spread so that not all return at once."""
    return rng.randint(500, 5000)
