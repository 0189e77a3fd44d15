"""A front end alone on real sockets and a real Redis; the test is the leader."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from prometheus_client import REGISTRY

from bridge.clock import Clock, SystemClock
from bridge.config import Settings
from bridge.events import DELETED, STATE, TRANSITION, Draft, cvm_data
from bridge.store.connection import Backend, connect
from bridge.store.leadership import Leadership, Term
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot
from bridge.uvicorn_server import http_url
from bridge.web.http.tls import Certificate
from bridge.web.server import serve_web
from tests.real.tls import OfFront
from tests.servers import PATIENCE

NOW = "2026-11-24T16:00:00.000Z"


@dataclass
class Front:
    """A front end, and the term in which the test leads."""

    url: str
    http: httpx.AsyncClient
    backend: Backend
    stop: asyncio.Event
    serving: asyncio.Task[None]
    written: WritePosition = field(default_factory=lambda: WritePosition(0, "0-0"))
    term: Term | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    async def connect(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that reads only when the test does; closed with the front end at the latest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2048, ssl=self.tls)
        self.writers.append(writer)
        fields = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        return reader, writer

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def lead(self) -> None:
        term = await Leadership(self.backend).acquire("test", 60.0, "birth")
        assert isinstance(term, Term)
        self.term, self.written = term, WritePosition(term.sequence, term.last_id)

    async def append(
        self,
        cvm_id: str = "cvm-1",
        filling: int = 0,
        *,
        name: str | None = None,
        app_id: str | None = None,
        ready: bool | None = None,
        gone: bool = False,
    ) -> str:
        """Appends one event and returns its id; `filling` characters make it large."""
        assert self.term is not None
        status, raw = "running", f'{{"status":"running","filling":"{"x" * filling}"}}'
        data = cvm_data(cvm_id, name, (None, status), "poll", raw, app_id=app_id, ready=ready)
        snapshot = Snapshot(cvm_id, '{"status":"running"}', status, name, NOW, NOW, app_id=app_id, ready=ready)
        if gone:
            data = cvm_data(cvm_id, name, (status, DELETED), "poll", None, app_id=app_id, ready=False)
            snapshot = replace(snapshot, raw_state=None, status=DELETED, ready=False)
        draft = Draft(TRANSITION if gone else STATE, cvm_id, NOW, data)
        self.written = await LogWriter(self.backend, 1000).append(self.term, self.written, draft, snapshot, ran=True)
        return self.written.last_id

    def metric(self, name: str) -> float:
        """As `/metrics` would show it, which may need a token."""
        return REGISTRY.get_sample_value(name) or 0.0

    async def until_present(self, count: int) -> None:
        """Waits until there are so many subscribers, all of them live."""
        async with asyncio.timeout(PATIENCE):
            while self._subscribers() != (count, 0):  # noqa: ASYNC110 - a server sets no event
                await asyncio.sleep(0.01)

    def _subscribers(self) -> tuple[float, float]:
        return self.metric("bridge_subscribers"), self.metric("bridge_subscribers_replaying")


async def played(redis_url: str, scenario: Callable[[Front], Awaitable[None]], **given: Any) -> None:
    """Runs a scenario on a front end with a leader; then closes the clients and checks that no subscriber is left."""
    async with front(redis_url, **given) as web:
        await web.lead()
        await scenario(web)
        for writer in web.writers:
            writer.close()
        await web.until_present(0)


@asynccontextmanager
async def front(
    redis_url: str,
    *,
    open_access: bool = True,
    protocol: type[asyncio.Protocol] | None = None,
    clock: Clock | None = None,
    port: int = 0,
    tls: OfFront | None = None,
    **given: Any,
) -> AsyncIterator[Front]:
    """`given`: settings. `port`: that of a front end that has ended."""
    settings = Settings(**{"lease_seconds": 30.0, "drain_seconds": 0.1, **given})
    backend, stop = connect(redis_url, settings.namespace), asyncio.Event()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_web(
            settings,
            backend,
            clock or SystemClock(),
            stop,
            host="127.0.0.1",
            port=port,
            open_access=open_access,
            on_listening=listening.set_result,
            protocol=protocol,
            certificate=Certificate(str(tls.certificate), str(tls.key)) if tls else None,
        )
    )
    trusting = tls.trusting if tls else None
    async with httpx.AsyncClient(verify=trusting or True) as http:
        try:
            url = http_url("127.0.0.1", await listening, tls=tls is not None)
            web = Front(url, http, backend, stop, serving, tls=trusting)
            yield web
        finally:
            for writer in web.writers:
                writer.close()
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await serving
            await backend.close()
