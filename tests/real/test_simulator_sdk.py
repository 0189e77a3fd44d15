"""The published Python SDK, unmodified, against the simulator: the simulator is faithful."""

from __future__ import annotations

import asyncio

import pytest
from phala_cloud import create_async_client, create_client

from bridge.simulator.server import serve
from bridge.simulator.world import World


async def test_get_cvm_state_gives_the_state_sync_and_async() -> None:
    async with serve(world=World(seed=7, cvms=2, frozen=True)) as sim:
        cvm = sim.simulator.world.cvms[0]
        given = {"api_key": "key", "base_url": sim.api_prefix}
        with create_client(**given) as client:
            for reference in (cvm.vm_uuid, cvm.name):
                state = await asyncio.to_thread(client.get_cvm_state, {"id": reference})
                assert (state.id, state.status, state.name) == (cvm.vm_uuid, cvm.status, cvm.name)
        async with create_async_client(**given) as client:
            state = await client.get_cvm_state({"id": cvm.vm_uuid})
            assert state.status == cvm.status


async def test_an_unknown_cvm_is_the_sdks_own_error() -> None:
    async with (
        serve(world=World(seed=7, cvms=1, frozen=True)) as sim,
        create_async_client(api_key="key", base_url=sim.api_prefix) as client,
    ):
        with pytest.raises(Exception, match="CVM not found"):
            await client.get_cvm_state({"id": "nobody"})
