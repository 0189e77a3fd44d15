"""A running leader keeps the log for a consumer group, and no longer than BRIDGE_GROUP_IDLE."""

from __future__ import annotations

import asyncio

from bridge.config import Settings
from bridge.store.consumer_groups import LOOK_EVERY
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

IDLE = 60.0


def test_a_leader_waits_for_a_group_that_is_made_meanwhile_until_it_is_idle() -> None:
    run_virtual(_waits())


async def _waits() -> None:
    cloud, settings = Cloud(["a"]), Settings(cvms=("a",), log_length=5, group_idle=IDLE)
    async with one_leader(settings, cloud, ModelClient) as (_, backend, _):

        async def change(times: int) -> int:
            """Makes events, six seconds apart; the length of the log then."""
            for number in range(times):
                cloud.change("a", "running" if cloud.status["a"] != "running" else f"s{number}")
                await asyncio.sleep(LOOK_EVERY + 1)
            return int(await backend.client.xlen(backend.keys.log))

        assert await change(8) == 5
        await backend.client.xgroup_create(backend.keys.log, "q", "$")
        assert await change(9) > 5
        assert len((await backend.client.xreadgroup("q", "c", {backend.keys.log: ">"}))[0][1]) >= 9
        assert await change(2) == 5
        assert await change(8) > 5
        assert await change(6) == 5, "it is idle"
