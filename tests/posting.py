"""Receivers that tests script byte by byte, and a poster to send to them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trustme

from bridge.addresses import Resolve, with_loopback
from bridge.clock import SystemClock
from bridge.config_values import Allowlist
from bridge.host_lookup import HostLookup
from bridge.webhooks.schedule import AttemptOutcome
from bridge.webhooks.transport import MOST_CONNECTIONS, Poster

DEADLINE = 0.5
SLACK = 2.0
"""Seconds that a loaded machine may add to a deadline: far from what a missed deadline would take."""

LOOPBACK = with_loopback(Allowlist())

Answer = Callable[["Conversation"], Awaitable[None]]


@dataclass
class Conversation:
    """One request that a receiver has read."""

    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode().split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}

    async def closed(self) -> None:
        """Returns once the other side has closed the connection."""
        async with asyncio.timeout(SLACK):
            with contextlib.suppress(ConnectionError):
                assert await self.reader.read() == b""

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()


@dataclass
class Scripted:
    """A server that answers each request by `answer`; what it saw is kept."""

    answer: Answer
    port: int = 0
    connections: int = 0
    requests: list[Conversation] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, host: str = "127.0.0.1", path: str = "/hook", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0] or 0)
                request = Conversation(head, await reader.readexactly(length), reader, writer)
                self.requests.append(request)
                await self.answer(request)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiver(
    answer: Answer, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Scripted]:
    """Ends its conversations with it, whatever they wait for."""
    found = Scripted(answer)
    if tls:
        tls.sni_callback = lambda _, name, __: found.names.append(name)
    server = await asyncio.start_server(found.serve, host, port, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in found.tasks:
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)


def fixed(status: str, body: bytes = b"", *headers: str) -> Answer:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers))

    async def answer(request: Conversation) -> None:
        await request.send(head.encode() + b"\r\n" + body)

    return answer


OK = fixed("200 OK", b"thanks")


async def never(request: Conversation) -> None:
    await asyncio.Event().wait()


async def hang_up(request: Conversation) -> None:
    request.writer.close()


async def reset(request: Conversation) -> None:
    raw = request.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    request.writer.transport.abort()


def raw(data: bytes) -> Answer:
    async def answer(request: Conversation) -> None:
        await request.send(data)
        request.writer.close()

    return answer


def names(*answers: Sequence[str]) -> Resolve:
    """Every name has these addresses: those of the first answer, then of the second, the last for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def poster(
    *,
    timeout: float = DEADLINE,
    allow: Allowlist = LOOPBACK,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
    most_connections: int = MOST_CONNECTIONS,
) -> Poster:
    resolve, tls = resolve or HostLookup(), tls or ssl.create_default_context()
    return Poster(
        timeout=timeout, allow=allow, clock=SystemClock(), resolve=resolve, tls=tls, most_connections=most_connections
    )


async def post(url: str, chosen: Poster | None = None, body: bytes = b"{}") -> AttemptOutcome:
    async with chosen or poster() as sender:
        async with asyncio.timeout(DEADLINE + SLACK):
            return await sender.post(url, {"content-type": "application/json", "webhook-id": "d-1"}, body)


@dataclass
class Certified:
    """An authority's certificate for `hooks.test`, for a receiver and for a poster that trusts it."""

    authority: trustme.CA
    server: ssl.SSLContext
    client: ssl.SSLContext


def certified() -> Certified:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("hooks.test").configure_cert(server)
    authority.configure_trust(client)
    return Certified(authority, server, client)


def word(outcome: AttemptOutcome) -> str | None:
    """Also: every error is a word, a colon and a sentence that quotes neither URL nor address."""
    if outcome.error is None:
        return None
    assert "127.0.0" not in outcome.error
    assert "hook" not in outcome.error
    assert not outcome.ok
    return outcome.error.partition(": ")[0]
