"""Replicas whose clocks are hours apart tell the same time: Redis's."""

from __future__ import annotations

import asyncio
import json

import pytest

from bridge.clock import unix
from bridge.store.log import Log
from tests.fakes import redis_time
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import SETTINGS, Replicas
from tests.virtual import run_virtual


@pytest.mark.parametrize("hours", [1, -1])
def test_events_and_snapshots_carry_redis_time_whichever_leader_writes_them(hours: int) -> None:
    async def scenario() -> None:
        cloud = Cloud(["a", "b"])
        replicas = Replicas(cloud)
        with redis_time(replicas.redis_clock):
            for index, status in enumerate(("stopped", "running")):
                leader = replicas.start(index)
                leader.clock.jump(3600.0 * hours * (1 if index == 0 else -2))
                await asyncio.sleep(60)
                cloud.change("a", status)
                await asyncio.sleep(SETTINGS.poll_interval + 2)
                await leader.end()
            for event in await Log(replicas.plain).read("0-0", 99):
                written = int(event.id.partition("-")[0]) / 1000
                assert abs(unix(json.loads(event.json)["time"]) - written) < 0.5
            _, snapshots = await Log(replicas.plain).snapshot()
            assert snapshots["a"].status == "running"
            for snapshot in snapshots.values():
                age = replicas.redis_clock.time() - unix(snapshot.observed_at)
                assert 0 <= age < SETTINGS.poll_interval + 2
            await replicas.plain.close()

    run_virtual(scenario())
