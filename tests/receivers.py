"""A webhook receiver on a real socket that answers as a test says and remembers every request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.servers import PATIENCE


@dataclass(frozen=True)
class Hit:
    """One request; `number` is the event's `to`, `at` the monotonic time."""

    path: str
    id: str
    cvm_id: str
    number: str
    at: float
    headers: dict[str, str]
    body: bytes


async def accept(hit: Hit) -> int:
    return 204


@dataclass
class Receiver:
    url: str = ""
    port: int = 0
    answer: Callable[[Hit], Awaitable[int]] = accept
    hits: list[Hit] = field(default_factory=list)
    accepted: list[Hit] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def never(self) -> int:
        """An answer that does not come before the end."""
        await self.closing.wait()
        return 204

    def order(self, path: str, cvm_id: str) -> list[str]:
        """What was accepted of one lane, repetitions left out."""
        return list(dict.fromkeys(h.number for h in self.accepted if (h.path, h.cvm_id) == (path, cvm_id)))

    async def until(self, holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        try:
            async with asyncio.timeout(patience):
                while not holds():  # noqa: ASYNC110 - another process's doing has no event
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise AssertionError(f"{what} did not come true; {len(self.hits)} hits") from error

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        data = _data(body)
        hit = Hit(
            request.path,
            request.headers.get("webhook-id") or request.headers["x-webhook-id"],
            str(data.get("cvm_id")),
            str(data.get("to")),
            time.monotonic(),
            dict(request.headers),
            body,
        )
        self.hits.append(hit)
        status = await self.answer(hit)
        if 200 <= status < 300:
            self.accepted.append(hit)
        return web.Response(status=status)


def _data(body: bytes) -> dict[str, Any]:
    """Of the event; a message for people has none."""
    try:
        found: dict[str, Any] = json.loads(body).get("data", {})
    except ValueError:
        return {}
    return found


@asynccontextmanager
async def receiving(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """On a port of this address; requests that are still open at the end are cut."""
    receiver = Receiver()
    server = web.Server(receiver.handle, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    receiver.url = f"http://{host}:{receiver.port}"
    try:
        yield receiver
    finally:
        receiver.closing.set()
        await runner.cleanup()
