"""`bridge web` as the contestant: a real Redis server, and the store's own leadership and log writer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.fanout.contestants import Contestant
from benchmarks.fanout.machine import free_port, started, until_answering
from benchmarks.fanout.payload import draft
from bridge.process.embedded import EmbeddedServer
from bridge.store.connection import Backend, connect
from bridge.store.leadership import Leadership, Term
from bridge.store.log_writer import LogWriter, WritePosition

NAMESPACE = "bench"
SECRET = "a-secret-of-the-benchmark"  # noqa: S105 - it opens nothing but the benchmark's own server
LEASE = 10.0
ROOT = Path(__file__).parents[2]


class Writer:
    """Leads, so that the front end hears its ticks, and appends."""

    def __init__(self, backend: Backend, leadership: Leadership, term: Term) -> None:
        self._leadership, self._term, self._backend = leadership, term, backend
        self._log_writer = LogWriter(backend, 100_000)
        self._written = WritePosition(term.sequence, term.last_id)

    @classmethod
    async def leading(cls, backend: Backend) -> Writer:
        leadership = Leadership(backend)
        term = await leadership.acquire("bench", LEASE, "bench")
        assert isinstance(term, Term), "the server is new: nobody else leads"
        return cls(backend, leadership, term)

    async def renew(self) -> None:
        while True:
            await self._leadership.renew(self._term, LEASE, LEASE / 3)
            await asyncio.sleep(LEASE / 3)

    async def publish(self, number: int) -> None:
        event, snapshot = draft(number, time.monotonic_ns())
        self._written = await self._log_writer.append(self._term, self._written, event, snapshot, ran=True)

    def cursor(self) -> str:
        return self._written.last_id

    async def log_reads(self) -> int:
        statistics = await self._backend.call(self._backend.client.info("commandstats"))
        return int(statistics.get("cmdstat_xrange", {}).get("calls", 0))


@contextlib.asynccontextmanager
async def bridge(core: int) -> AsyncIterator[Contestant]:
    """Tokens are checked; Redis is on the client's core, which this process and so its children keep to."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        redis = await stack.enter_async_context(EmbeddedServer(directory / "redis"))
        backend = connect(redis.socket_url, NAMESPACE)
        stack.push_async_callback(backend.close)
        writer = await Writer.leading(backend)
        renewing = asyncio.create_task(writer.renew(), name="lease")
        stack.callback(renewing.cancel)
        port = free_port()
        command = [sys.executable, "-m", "bridge", "web"]
        environment = _environment(redis.socket_url, port)
        web = await stack.enter_async_context(started(command, core, environment=environment, directory=directory))
        await until_answering(web, port, "/readyz")
        yield Contestant(
            web.pid,
            port,
            "/v1/events?snapshot=0",
            writer.publish,
            (f"Authorization: Bearer {SECRET}",),
            writer.cursor,
            writer.log_reads,
        )


def _environment(redis_url: str, port: int) -> dict[str, str]:
    """Defaults but for what is named here, whatever the caller's shell has set."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "PHALA_"))}
    return inherited | {
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": redis_url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "BRIDGE_NAMESPACE": NAMESPACE,
        "BRIDGE_TOKENS": f"bench:{SECRET}:read",
        "BRIDGE_LOG_LEVEL": "warning",
        "BRIDGE_LOG_FORMAT": "console",
    }
