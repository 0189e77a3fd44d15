"""An account whose streams others use too, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.config import Settings
from bridge.upstream.client import StreamEvent
from bridge.upstream.leader import Upstream
from tests.fakes import fake_backend, redis_time
from tests.unit.upstream.model import LIMIT, Cloud, ModelClient
from tests.virtual import VirtualClock, run_virtual

NAMES = [f"cvm-{number:02}" for number in range(10)]


class SlowHeaders(ModelClient):
    """A refusal is there at once, the headers of a stream only later."""

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        async with super().stream(ref, target=target, interval=interval, timeout=timeout) as events:
            await asyncio.sleep(0.5)
            yield events


def test_refusals_among_streams_that_are_being_opened_at_once_cost_only_themselves() -> None:
    for others in range(LIMIT + 1):
        assert run_virtual(open_beside(others)) == (LIMIT - others, LIMIT - others)


async def open_beside(others: int) -> tuple[int, int]:
    """How many streams of ours are open after some seconds, and how many the bridge thinks that it may have."""
    clock, thawed, stop = VirtualClock(), asyncio.Event(), asyncio.Event()
    thawed.set()
    cloud, backend = Cloud(NAMES), fake_backend()
    cloud.others = others
    client = SlowHeaders(cloud, clock, thawed)
    with redis_time(clock):
        upstream = Upstream(Settings(cvms=tuple(NAMES)), backend, client, clock, alone=True)
        running = asyncio.create_task(upstream.run(stop))
        await asyncio.sleep(20)
        assert upstream.context is not None
        found = len(cloud.streams), upstream.context.budget.streams
        stop.set()
        await running
        await backend.close()
    return found
