"""One request relayed to upstream and the answer back, both streamed and unchanged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

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
class RelayedRequest:
    """An ASGI app for one request; it ends when either side does, or when `closing` is set."""

    http: httpx.AsyncClient
    request: Request
    url: httpx.URL
    closing: asyncio.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload = _Upload(receive)
        exchange = asyncio.create_task(self._exchange(upload, scope, send), name="passthrough")
        gone = asyncio.create_task(upload.gone(), name="passthrough client")
        closing = asyncio.create_task(self.closing.wait(), name="passthrough end")
        try:
            await asyncio.wait({exchange, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done() and not gone.done():
                await self._abort(upload, scope)
        finally:
            for task in (exchange, gone, closing):
                task.cancel()
            await asyncio.wait({exchange, gone, closing})
        if not exchange.cancelled():
            exchange.result()

    async def _exchange(self, upload: _Upload, scope: Scope, send: Send) -> None:
        content, headers = None, _passed(self.request.headers.raw, _NOT_SENT)
        chunked = "transfer-encoding" in self.request.headers
        if chunked or any(name == b"content-length" for name, _ in headers):
            content = upload.chunks()
        else:
            upload.finished.set()
        request = httpx.Request(self.request.method, self.url, headers=headers, content=content)
        try:
            response = await self.http.send(request, stream=True)
        except httpx.HTTPError as error:
            # Only the error's type: its text may quote a header, and so a key.
            logger.info("a relayed request failed", extra={"reason": type(error).__name__})
            upload.finished.set()
            await unreachable()(scope, upload.receive, send)
            return
        try:
            await self._answer(response, scope, send)
        except httpx.HTTPError as error:
            logger.info("upstream broke off a relayed answer", extra={"reason": type(error).__name__})
            await self._abort(upload, scope)
        finally:
            await response.aclose()

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
            upload.finished.set()
            await upload.gone()


class _Upload:
    """The caller's body, and then the end of its connection."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.finished = asyncio.Event()
        self._disconnected = False

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self._disconnected = True
                self.finished.set()
                # An incomplete body must not look complete: this task, and with it the request, is cancelled.
                await asyncio.Event().wait()
            if body := message.get("body", b""):
                yield body
            if not message.get("more_body", False):
                self.finished.set()
                return

    async def gone(self) -> None:
        await self.finished.wait()
        while not self._disconnected and (await self.receive())["type"] != "http.disconnect":
            continue


def unreachable() -> Response:
    return JSONResponse({"detail": "Upstream cannot be reached"}, 502)


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
