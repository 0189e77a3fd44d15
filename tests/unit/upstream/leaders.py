"""One leader alone, before the model of upstream and a Redis inside the process, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.upstream.leader import Upstream
from tests.fakes import fake_backend, redis_time
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import VirtualClock

C = TypeVar("C", bound=ModelClient)


@asynccontextmanager
async def one_leader(
    settings: Settings,
    cloud: Cloud,
    kind: Callable[[Cloud, Clock, asyncio.Event], C],
    backend: Backend | None = None,
    *,
    clock: VirtualClock | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[tuple[C, Backend, Upstream]]:
    """It takes the lead after the first await, and stops at the end. A `backend` that is given stays open."""
    clock, thawed, stop, own = clock or VirtualClock(), asyncio.Event(), asyncio.Event(), backend or fake_backend()
    thawed.set()
    client = kind(cloud, clock, thawed)
    upstream = Upstream(settings, own, client, clock, alone=True, rng=rng)
    with redis_time(clock):
        running = asyncio.create_task(upstream.run(stop), name="upstream")
        yield client, own, upstream
        stop.set()
        await running
        if backend is None:
            await own.close()
