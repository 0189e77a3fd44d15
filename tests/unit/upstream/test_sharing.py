"""An account whose streams others use too, or whose streams are counted for longer than they last, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.config import Settings
from bridge.upstream.client import StreamEvent
from tests.fakes import redis_time
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import LIMIT, NOTICED_LATE, Cloud, ModelClient
from tests.unit.upstream.replicas import Replicas
from tests.virtual import run_virtual

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
    cloud = Cloud(NAMES)
    cloud.others = others
    async with one_leader(Settings(cvms=tuple(NAMES)), cloud, SlowHeaders) as (_, _, upstream):
        await asyncio.sleep(20)
        assert upstream.context is not None
        return len(cloud.streams), upstream.context.budget.streams


def test_an_upstream_that_notices_ends_late_costs_seconds_of_a_stream_and_not_a_minute() -> None:
    """Streams last a minute here, and each of them is ended five seconds before upstream knows."""
    held, after_restart = run_virtual(late_notice())
    assert sum(held) / len(held) >= 4.4
    assert after_restart == LIMIT


async def late_notice() -> tuple[list[int], int]:
    """How many streams are held in each second, and how many some seconds after a restart."""
    cloud = Cloud(NAMES)
    cloud.noticed_after = NOTICED_LATE
    replicas, held = Replicas(cloud), list[int]()
    with redis_time(replicas.redis_clock):
        replicas.start(0)
        await asyncio.sleep(60)
        for second in range(600):
            if second % 10 == 0:
                cloud.change(NAMES[second // 10 % len(NAMES)], ("stopping", "stopped", "running")[second // 100 % 3])
            held.append(cloud.held)
            await asyncio.sleep(1)
        await replicas.restart(0)
        await asyncio.sleep(NOTICED_LATE + 5)
        after_restart = cloud.held
        await replicas.end()
    assert cloud.broken == []
    return held, after_restart
