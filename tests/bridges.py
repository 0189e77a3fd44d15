"""A whole bridge in one process on a real Redis and the simulator, with short periods, for tests of the way through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import aconnect_sse

from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.events import Event
from bridge.simulator.server import Running, serve
from bridge.simulator.world import World
from bridge.store.connection import Backend, connect
from bridge.store.log import Log
from bridge.upstream.client import PhalaClient
from bridge.upstream.leader import Upstream
from bridge.web.server import serve_web

PATIENCE = 20.0

SEED = 7
"""Of every simulated world here."""


@dataclass
class Whole:
    """What a test touches: the simulator's control, the front end's address, the store."""

    sim: Running
    http: httpx.AsyncClient
    url: str
    backend: Backend
    upstream: Upstream

    @property
    def ids(self) -> list[str]:
        return [cvm.vm_uuid for cvm in self.sim.simulator.world.cvms]

    async def patch(self, cvm_id: str, **change: object) -> None:
        answer = await self.http.patch(f"{self.sim.control}/cvms/{cvm_id}", json={"push": True, **change})
        assert answer.status_code == 200, answer.text

    async def control(self, method: str, path: str, **given: Any) -> Any:
        answer = await self.http.request(method, f"{self.sim.control}{path}", **given)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def log(self) -> list[Event]:
        return await Log(self.backend).read("0-0", 10_000)

    async def cvm(self, ref: str) -> dict[str, Any]:
        answer = await self.http.get(f"{self.url}/v1/cvms/{ref}")
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, holds: Callable[[], Any], what: str) -> Any:
        """The first true value of an async callable."""
        async with asyncio.timeout(PATIENCE):
            while not (value := await holds()):  # noqa: ASYNC110 - a real server's doing has no event
                await asyncio.sleep(0.02)
        return value

    async def until_seen(self, count: int) -> None:
        """All CVMs have a first event."""

        async def seen() -> bool:
            return len({event.cvm_id for event in await self.log()}) >= count

        await self.until(seen, "first sight")

    async def until_streamed(self, count: int) -> None:
        """So many CVMs are followed by a stream: each change from here on is observed."""

        async def streamed() -> bool:
            items = (await self.http.get(f"{self.url}/v1/slots")).json()["items"]
            return bool(sum(item["state"] == "held" for item in items) >= count)

        await self.until(streamed, "streams")


@asynccontextmanager
async def whole(
    redis_url: str,
    *,
    cvms: int = 3,
    time_scale: float = 0.1,
    settings: dict[str, Any] | None = None,
    open_access: bool = True,
    keys: dict[str, str] | None = None,
    operations: bool = False,
    port: int = 0,
) -> AsyncIterator[Whole]:
    """`keys`: the simulator's users by key, one of them `key`, which is the bridge's. `operations`: upstream tells of
    them, so that transitions have readiness beside them.
    """
    given = {"cvms": ("*",), "poll_interval": 0.2, "lease_seconds": 1.0, "stream_timeout": 60, "drain_seconds": 0.1}
    chosen = Settings(**{**given, **(settings or {})})
    clock, stop = SystemClock(), asyncio.Event()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    world = World(seed=SEED, cvms=cvms, frozen=True)
    async with (
        serve(world=world, keys=keys, time_scale=time_scale, instant=True, operations=operations) as sim,
        httpx.AsyncClient() as http,
    ):
        chosen = chosen.model_copy(update={"api_prefix": sim.api_prefix})
        backend, client = connect(redis_url, chosen.namespace), PhalaClient(sim.api_prefix, "key", clock=clock)
        upstream = Upstream(chosen, backend, client, clock, alone=True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(upstream.run(stop))
                group.create_task(
                    serve_web(
                        chosen,
                        backend,
                        clock,
                        stop,
                        host="127.0.0.1",
                        port=port,
                        open_access=open_access,
                        on_listening=listening.set_result,
                    )
                )
                yield Whole(sim, http, f"http://127.0.0.1:{await listening}", backend, upstream)
                stop.set()
        finally:
            await client.aclose()
            await backend.close()


async def sse(
    http: httpx.AsyncClient, url: str, count: int, *, headers: dict[str, str] | None = None
) -> list[tuple[str, str, dict[str, Any]]]:
    """The first `count` events as (event, id, data), by the published httpx-sse."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    async with asyncio.timeout(PATIENCE), aconnect_sse(http, "GET", url, headers=headers or {}) as source:
        source.response.raise_for_status()
        if count == 0:
            return found
        async for event in source.aiter_sse():
            found.append((event.event, event.id, json.loads(event.data)))
            if len(found) == count:
                break
    return found
