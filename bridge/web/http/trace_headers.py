"""The caller's trace context: taken from the request's head, given back with the answer."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from bridge import tracing
from bridge.clock import Clock
from bridge.tracing import Span, Trace

PARENT, STATE = b"traceparent", b"tracestate"


class TraceHeaders:
    """An ASGI middleware. The span of a request is within the caller's; a request without a valid `traceparent` has
    none, and costs nothing more.
    """

    def __init__(self, app: ASGIApp, rng: random.Random, clock: Clock) -> None:
        self._app = app
        self._rng = rng
        self._clock = clock

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        caller = _caller(scope) if scope["type"] == "http" else None
        trace = caller.child(self._rng) if caller else None
        tracing.current.set(trace)  # always: a pipelined request's task inherits the one before
        if caller is not None and trace is not None:
            about = {"http.request.method": scope["method"], "url.path": scope["path"]}
            answered = partial(self._answered, caller, trace, self._clock.time(), about)
            send = partial(_give_back, send, (PARENT, trace.traceparent.encode()), answered)
        return self._app(scope, receive, send)

    def _answered(self, caller: Trace, trace: Trace, began: float, about: dict[str, object], status: int) -> None:
        """Its answer begins, which for a stream is all that it waits for."""
        if tracing.are_exported():
            about["http.response.status_code"] = status
            span = Span(
                name=f"{about['http.request.method']}",
                trace=trace,
                parent_id=caller.span_id,
                began=began,
                ended=self._clock.time(),
                about=about,
                fault=f"status {status}" if status >= 500 else "",
            )
            tracing.finished(span)


def _caller(scope: Scope) -> Trace | None:
    found = [value for name, value in scope["headers"] if name == PARENT]
    if len(found) != 1:  # of several, nobody can tell the right one
        return None
    state = b",".join(value for name, value in scope["headers"] if name == STATE)
    return tracing.read(found[0].decode("latin-1"), state.decode("latin-1"))


async def _give_back(
    send: Send, field: tuple[bytes, bytes], answered: Callable[[int], None], message: MutableMapping[str, Any]
) -> None:
    if message["type"] == "http.response.start":
        answered(message["status"])
        others = [each for each in message.get("headers", ()) if each[0].lower() != PARENT]  # a relayed answer's
        message = {**message, "headers": [*others, field]}
    await send(message)
