"""One request relayed to upstream and the answer back, both streamed and unchanged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from bridge.web.dropin import wire
from bridge.web.dropin.relay_limits import NoPlaceError, Shares, Uploads
from bridge.web.http.problems import ProblemError, ProblemType
from bridge.web.streaming.detach import ABORT

logger = logging.getLogger(__name__)

# RFC 9110 section 7.6.1, and the headers that the server and httpx write themselves.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_NOT_SENT = _HOP_BY_HOP | {b"host", b"expect"}
_NOT_RETURNED = _HOP_BY_HOP | {b"date"}


@dataclass(frozen=True, slots=True)
class Relay:
    """What the relayed requests share; they all end when `closing` is set."""

    http: httpx.AsyncClient
    shares: Shares
    uploads: Uploads
    closing: asyncio.Event


@dataclass(frozen=True, slots=True)
class RelayedRequest:
    """An ASGI app for one request; it ends when either side does, or when the relay closes."""

    relay: Relay
    request: Request
    url: httpx.URL
    key_hash: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload = _Upload(receive, self.relay.uploads)
        exchange = asyncio.create_task(self._exchange(upload, scope, send), name="passthrough")
        upload.end = exchange.cancel
        gone = asyncio.create_task(upload.gone(), name="passthrough client")
        closing = asyncio.create_task(self.relay.closing.wait(), name="passthrough end")
        try:
            await asyncio.wait({exchange, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done() and not gone.done():
                await self._abort(upload, scope)
        finally:
            for task in (exchange, gone, closing):
                task.cancel()
            await asyncio.wait({exchange, gone, closing})
            upload.finish()
        if not exchange.cancelled():
            exchange.result()
        elif upload.gave_way:
            await overloaded("too many request bodies are on their way")(scope, receive, send)

    async def _exchange(self, upload: _Upload, scope: Scope, send: Send) -> None:
        try:
            async with self.relay.shares.place(self.key_hash):
                await self._exchange_now(upload, scope, send)
        except NoPlaceError:
            upload.finish()
            await no_place()(scope, upload.receive, send)

    async def _exchange_now(self, upload: _Upload, scope: Scope, send: Send) -> None:
        try:
            response = await self._send(upload)
        except httpx.HTTPError as error:
            # Only the error's type: its text may quote a header, and so a key.
            logger.info("a relayed request failed", extra={"reason": type(error).__name__})
            await failed(error)(scope, upload.receive, send)
            return
        try:
            await self._answer(response, scope, send)
        except httpx.HTTPError as error:
            logger.info("upstream broke off a relayed answer", extra={"reason": type(error).__name__})
            await self._abort(upload, scope)
        finally:
            await response.aclose()

    async def _send(self, upload: _Upload) -> httpx.Response:
        """Returns once upstream begins its answer. Raises httpx.HTTPError."""
        content, headers = None, _passed(self.request.headers.raw, _NOT_SENT)
        chunked = "transfer-encoding" in self.request.headers
        if chunked or any(name == b"content-length" for name, _ in headers):
            content = upload.chunks()
            self.relay.uploads.enter(upload)
        try:
            request = httpx.Request(self.request.method, self.url, headers=headers, content=content)
            return await self.relay.http.send(request, stream=True)
        finally:
            upload.finish()

    async def _answer(self, response: httpx.Response, scope: Scope, send: Send) -> None:
        headers = _passed(response.headers.raw, _NOT_RETURNED)
        if response.status_code in (204, 304):
            # The server would wait for a body of that length.
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        location = response.extensions.get("bridge.location")
        if location is not None:
            headers.append((b"location", location))
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for chunk in response.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _abort(self, upload: _Upload, scope: Scope) -> None:
        """Breaks the connection, so that the caller notices that the answer is incomplete."""
        abort = (scope.get("extensions") or {}).get(ABORT, {}).get("call")
        if abort is not None:
            abort()
            upload.finish()
            await upload.gone()


class _Upload:
    """The caller's body, and then the end of its connection. `end` is what gives way to other bodies."""

    def __init__(self, receive: Receive, uploads: Uploads) -> None:
        self.receive = receive
        self._uploads = uploads
        self._finished = asyncio.Event()
        self._disconnected = False
        self.gave_way = False
        self.end: Callable[[], object] = lambda: None

    def finish(self) -> None:
        """Nothing more is read of the body; idempotent."""
        self._uploads.leave(self)
        self._finished.set()

    def give_way(self) -> None:
        self.gave_way = True
        self.end()

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self._disconnected = True
                self.finish()
                # An incomplete body must not look complete: this task, and with it the request, is cancelled.
                await asyncio.Event().wait()
            if body := message.get("body", b""):
                yield body
            if not message.get("more_body", False):
                self.finish()
                return

    async def gone(self) -> None:
        await self._finished.wait()
        while not self._disconnected and (await self.receive())["type"] != "http.disconnect":
            continue


def failed(error: Exception) -> Response:
    """The answer for a request that upstream did not answer."""
    if isinstance(error, httpx.PoolTimeout):
        return overloaded("all connections to upstream are in use")
    return JSONResponse({"detail": "Upstream cannot be reached"}, 502)


def no_place() -> Response:
    title = "This key has too many requests here at the same time"
    return wire.refused(ProblemError(ProblemType.OVERLOADED, title=title, status=429), keyed=True)


def overloaded(why: str) -> Response:
    title = "The passthrough is full at the moment"
    return wire.refused(ProblemError(ProblemType.OVERLOADED, why, title=title), keyed=True)


def _passed(headers: Iterable[tuple[bytes, bytes]], kept_back: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The end-to-end headers: without `kept_back`, and without those that `Connection` names."""
    lower = [(name.lower(), value) for name, value in headers]
    named = {token.strip().lower() for name, value in lower if name == b"connection" for token in value.split(b",")}
    return [(name, value) for name, value in lower if name not in kept_back and name not in named]


async def keep_location(response: httpx.Response) -> None:
    """A hook for the client: httpx parses a redirect's target although it follows none, and fails if it is invalid."""
    location = response.headers.pop("location", None)
    if location is not None:
        response.extensions["bridge.location"] = location.encode("latin-1", "replace")
