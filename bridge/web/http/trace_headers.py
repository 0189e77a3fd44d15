"""The caller's trace context: taken from the request's head, given back with the answer."""

from __future__ import annotations

import random
from collections.abc import Awaitable, MutableMapping
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from bridge import tracing
from bridge.tracing import Trace

PARENT, STATE = b"traceparent", b"tracestate"


class TraceHeaders:
    """An ASGI middleware. The span of a request is within the caller's; a request without a valid `traceparent` has
    none, and costs nothing more.
    """

    def __init__(self, app: ASGIApp, rng: random.Random) -> None:
        self._app = app
        self._rng = rng

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        trace = self._trace(scope) if scope["type"] == "http" else None
        tracing.current.set(trace)  # always: a pipelined request's task inherits the one before
        if trace is not None:
            send = partial(_give_back, send, (PARENT, trace.traceparent.encode()))
        return self._app(scope, receive, send)

    def _trace(self, scope: Scope) -> Trace | None:
        found = [value for name, value in scope["headers"] if name == PARENT]
        if len(found) != 1:  # of several, nobody can tell the right one
            return None
        state = b",".join(value for name, value in scope["headers"] if name == STATE)
        caller = tracing.read(found[0].decode("latin-1"), state.decode("latin-1"))
        return caller.child(self._rng) if caller else None


async def _give_back(send: Send, field: tuple[bytes, bytes], message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.response.start":
        others = [each for each in message.get("headers", ()) if each[0].lower() != PARENT]  # a relayed answer's
        message = {**message, "headers": [*others, field]}
    await send(message)
