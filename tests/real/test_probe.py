"""The probe of a role without a front end: nobody who reaches its port takes the leader's memory, time or files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from bridge.config import Settings
from bridge.process.probe import MOST_CONNECTIONS, create_app, start_probe
from bridge.store.connection import Backend
from tests.servers import PATIENCE, free_port

READY = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def probe(backend: Backend) -> AsyncIterator[int]:
    port, stop = free_port(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        start_probe(group, Settings(probe_port=port), create_app(backend, lambda: "leader"), stop)
        await asyncio.sleep(0)  # it listens before it first waits
        yield port
        stop.set()


async def answer_to(port: int, given: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(given)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read(-1)
    writer.close()
    return answer


async def test_what_a_leader_notes_is_told_while_it_is_ready(backend: Backend) -> None:
    app = create_app(backend, lambda: "leader", note=lambda: "BRIDGE_CVMS: name:job-*: no CVM matches it yet")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        answer = (await http.get("/readyz")).json()
    assert answer == {"status": "ready", "role": "leader", "reason": "BRIDGE_CVMS: name:job-*: no CVM matches it yet"}


async def test_a_head_without_end_is_refused(backend: Backend) -> None:
    async with probe(backend) as port:
        assert (await answer_to(port, READY)).startswith(b"HTTP/1.1 200 ")
        assert (await answer_to(port, READY[:-2] + b"X-Long: " + b"a" * 70_000)).startswith(b"HTTP/1.1 431 ")


async def test_silent_connections_give_way(backend: Backend) -> None:
    async with probe(backend) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS + 20)]
        assert (await answer_to(port, READY)).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(PATIENCE):
            assert await silent[0][0].read(-1) == b""
        for _, writer in silent:
            writer.close()
