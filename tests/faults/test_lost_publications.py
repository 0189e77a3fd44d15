"""Pub/sub alone is dead while Redis answers commands: events come from the log, and readiness tells it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from tests.real.fronts import Front, front
from tests.real.test_stream_servers import ids_in
from tests.servers import PATIENCE, RealServer

STREAM = "/v1/events?snapshot=0"


@dataclass
class PubSubProxy:
    """Passes everything on, but for what a subscribed connection would bring while `mute` is set."""

    port: int = 0
    mute: Callable[[bytes], bool] = lambda _: False
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def before(self, target: int) -> AsyncIterator[str]:
        """Serves; its `redis://` URL."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner, outer = await asyncio.open_connection("127.0.0.1", target)
            self._writers += [writer, outer]
            subscribed = False

            async def there() -> None:
                nonlocal subscribed
                while data := await reader.read(65_536):
                    subscribed = subscribed or b"SUBSCRIBE" in data
                    outer.write(data)
                outer.close()

            async def back() -> None:
                while data := await inner.read(65_536):
                    if not (subscribed and self.mute(data)):
                        writer.write(data)
                writer.close()

            with contextlib.suppress(OSError):
                await asyncio.gather(there(), back())

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
            for writer in self._writers:
                writer.close()


async def until_status(web: Front, status: str, reason: str) -> None:
    found: dict[str, str] = {}
    async with asyncio.timeout(PATIENCE):
        while (found.get("status"), found.get("reason")) != (status, reason):
            found = (await web.http.get(f"{web.url}/readyz")).json()
            await asyncio.sleep(0.02)


async def comes(web: Front, reader: asyncio.StreamReader, read: bytearray, count: int) -> list[str]:
    """Appends so many events, one after the other has come; their ids."""
    written = []
    for _ in range(count):
        written.append(await web.append())
        async with asyncio.timeout(PATIENCE):
            while written[-1].encode() not in read:
                read += await reader.read(65_536)
    return written


@contextlib.asynccontextmanager
async def refused(server: RealServer) -> AsyncIterator[None]:
    server.call("ACL", "SETUSER", "default", "-subscribe")
    server.call("CLIENT", "KILL", "TYPE", "pubsub")
    try:
        yield
    finally:
        server.call("ACL", "SETUSER", "default", "+subscribe")


@pytest.mark.parametrize("way", ["refused", "silent", "confirmed but silent"])
async def test_without_publications_events_come_from_the_log_and_none_twice_when_they_are_back(
    own_server: RealServer, way: str
) -> None:
    proxy = PubSubProxy()
    # No tick of a leader is due in this test, so the subscription is not made anew by itself.
    async with proxy.before(own_server.port) as url, front(url, lease_seconds=3600.0, heartbeat=3600) as web:
        await web.lead()
        await until_status(web, "ready", "")
        reader, _ = await web.connect(STREAM)
        await web.until_present(1)
        read = bytearray()
        written = await comes(web, reader, read, 2)
        async with contextlib.AsyncExitStack() as fault:
            if way == "refused":
                await fault.enter_async_context(refused(own_server))
            else:
                proxy.mute = (lambda _: True) if way == "silent" else (lambda data: b"message" in data)
            written += await comes(web, reader, read, 2)
            await until_status(web, "degraded", "nothing comes through the subscription to Redis")
            proxy.mute = lambda _: False
        written += await comes(web, reader, read, 2)
        await until_status(web, "ready", "")
        written += await comes(web, reader, read, 2)
        assert ids_in(bytes(read))[1:] == written  # the first is the position at which it began
