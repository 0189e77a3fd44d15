"""Dispatchers in virtual time on one fake Redis, and what their receivers got."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import fakeredis

from bridge.store.connection import Backend
from bridge.store.deliveries import Deliveries, Delivery
from bridge.store.limits import LaneLimits
from bridge.webhooks.dispatcher import Dispatcher
from tests.fakes import fake_backend, redis_time
from tests.lanes import FakePoster, Got, Writer, named, plain, unsealed
from tests.virtual import VirtualClock


@dataclass
class Stage:
    """One fake Redis, a leader, and as many dispatchers as a test starts."""

    server: fakeredis.FakeServer
    clock: VirtualClock
    backend: Backend
    writer: Writer
    limits: LaneLimits = field(default_factory=LaneLimits)
    stops: list[tuple[asyncio.Event, asyncio.Task[None]]] = field(default_factory=list)

    def start(
        self,
        poster: FakePoster,
        retry: Sequence[float] = (1, 1, 1, 1, 1, 1, 1, 1),
        backend: Backend | None = None,
        **given: Any,
    ) -> int:
        chosen: dict[str, Any] = {"render": plain, "sign": named, "unseal": unsealed, **given}
        stop = asyncio.Event()
        dispatcher = Dispatcher(
            backend or fake_backend(self.server),
            poster,
            retry=retry,
            clock=self.clock,
            rng=random.Random(7),
            limits=self.limits,
            **chosen,
        )
        self.stops.append((stop, asyncio.create_task(dispatcher.run(stop))))
        return len(self.stops) - 1

    async def stop(self, which: int) -> None:
        stop, task = self.stops[which]
        stop.set()
        await task

    async def kill(self, which: int) -> None:
        """As SIGKILL: nothing more reaches Redis."""
        _, task = self.stops[which]
        task.cancel()
        await asyncio.wait([task])

    async def deliveries(self, endpoint_id: str = "e") -> list[Delivery]:
        return (await Deliveries(self.backend).page(endpoint_id, limit=1000))[0]

    async def until(self, holds: Callable[[], Awaitable[Any]], seconds: float = 60, every: float = 0.05) -> None:
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110 - what is waited for happens in Redis
                await asyncio.sleep(every)

    async def all_done(self, *names: str, seconds: float = 60) -> None:
        async def done() -> bool:
            states = [each.status for name in names or ("e",) for each in await self.deliveries(name)]
            return bool(states) and "pending" not in states

        await self.until(done, seconds, every=0.5)


@asynccontextmanager
async def staged(limits: LaneLimits | None = None) -> AsyncIterator[Stage]:
    clock, server = VirtualClock(), fakeredis.FakeServer()
    with redis_time(clock):
        backend = fake_backend(server)
        stage = Stage(server, clock, backend, await Writer.lead(backend), limits or LaneLimits())
        try:
            yield stage
        finally:
            for which, (_, task) in enumerate(stage.stops):
                if not task.done():
                    await stage.stop(which)
            await backend.close()


def cvm(got: Got) -> str:
    return str(json.loads(got.body)["subject"])


def number(got: Got) -> int:
    return int(json.loads(got.body)["data"]["to"])


async def true(value: object) -> bool:
    """Whether there is any, as `Stage.until` asks."""
    return bool(value)
