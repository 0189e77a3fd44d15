"""The published Python SDK (`phala-cloud`), unmodified, against the simulator: what it accepts, upstream would say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from phala_cloud import (
    AsyncPhalaCloud,
    AuthError,
    BusinessError,
    PhalaCloud,
    ResourceError,
    ServerError,
    parse_webhook_event,
)

from bridge.clock import SystemClock
from bridge.simulator.server import Running, serve
from bridge.simulator.webhooks import headers, webhook
from bridge.simulator.world import Cvm, World
from tests.real.waiting import until


@pytest.fixture
async def sim() -> AsyncIterator[Running]:
    """Two CVMs that do nothing by themselves; five seconds take 0.05."""
    world = World(seed=3, cvms=2, frozen=True)
    async with serve(world=world, keys={"key-a": "alice"}, time_scale=0.01) as running:
        yield running


@pytest.fixture
async def sdk(sim: Running) -> AsyncIterator[AsyncPhalaCloud]:
    async with AsyncPhalaCloud(api_key="key-a", base_url=sim.api_prefix) as client:
        yield client


@pytest.fixture
async def sync_sdk(sim: Running) -> AsyncIterator[PhalaCloud]:
    with PhalaCloud(api_key="key-a", base_url=sim.api_prefix) as client:
        yield client


@pytest.fixture
def cvm(sim: Running) -> Cvm:
    return sim.simulator.world.cvms[0]


async def test_get_cvm_state_by_each_reference(sdk: AsyncPhalaCloud, sync_sdk: PhalaCloud, cvm: Cvm) -> None:
    requests = [
        {"uuid": cvm.vm_uuid},
        {"id": cvm.cvm_id},
        {"app_id": f"app_{cvm.app_id}"},
        {"instance_id": cvm.instance_id},
        {"cvm_id": cvm.name},
    ]
    states = [await sdk.get_cvm_state(request) for request in requests]
    states += [await asyncio.to_thread(sync_sdk.get_cvm_state, request) for request in requests]

    assert [(state.id, state.status) for state in states] == [(cvm.vm_uuid, "running")] * 10


async def test_watch_cvm_state_returns_when_the_target_comes(
    sim: Running, sdk: AsyncPhalaCloud, sync_sdk: PhalaCloud, cvm: Cvm
) -> None:
    request = {"id": cvm.vm_uuid, "target": "stopped", "maxRetries": 0}
    watching = [
        asyncio.create_task(sdk.watch_cvm_state(request)),
        asyncio.create_task(asyncio.to_thread(sync_sdk.watch_cvm_state, request)),
    ]
    await until(lambda: len(sim.simulator.quota.streams()) == 2)
    sim.simulator.world.update(cvm, {"status": "stopped"})

    for result in await asyncio.gather(*watching):
        assert (result.status, result.target) == ("stopped", "stopped")
    assert sim.simulator.counters.requests == {"stream": 2}


async def test_watch_cvm_state_of_a_target_already_met(sdk: AsyncPhalaCloud, sync_sdk: PhalaCloud, cvm: Cvm) -> None:
    request = {"id": cvm.vm_uuid, "target": "running", "maxRetries": 0}

    assert (await sdk.watch_cvm_state(request)).status == "running"
    assert (await asyncio.to_thread(sync_sdk.watch_cvm_state, request)).status == "running"


async def test_watch_cvm_state_retries_after_a_timeout_and_an_error(
    sim: Running, sdk: AsyncPhalaCloud, sync_sdk: PhalaCloud, cvm: Cvm
) -> None:
    request = {"id": cvm.vm_uuid, "target": "never", "timeout": 10, "maxRetries": 1, "retryDelay": 0}
    with pytest.raises(TimeoutError):
        await sdk.watch_cvm_state(request)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(sync_sdk.watch_cvm_state, request)

    assert sim.simulator.counters.requests == {"stream": 4}


async def test_errors_become_the_sdks_own(sim: Running, sdk: AsyncPhalaCloud, cvm: Cvm) -> None:
    with pytest.raises(ResourceError) as missing:
        await sdk.get_cvm_state({"id": "nobody"})
    sim.simulator.world.create(name=cvm.name)
    with pytest.raises(ResourceError) as shared:
        await sdk.get_cvm_state({"id": cvm.name})
    with pytest.raises(BusinessError) as invalid:
        await sdk.get(f"/cvms/{cvm.vm_uuid}/state", params={"interval": 1})
    async with AsyncPhalaCloud(api_key="wrong", base_url=sim.api_prefix) as stranger:
        with pytest.raises(AuthError):
            await stranger.get_cvm_state({"id": cvm.vm_uuid})

    assert (missing.value.status_code, missing.value.error_code) == (404, "ERR-03-001")
    assert (shared.value.status_code, shared.value.error_code) == (409, "ERR-03-002")
    assert invalid.value.status_code == 422
    assert not issubclass(invalid.type, ServerError)


@pytest.mark.parametrize("version", ["2025-10-28", "2026-01-21", "2026-05-22", "2026-06-23"])
async def test_lists_and_batches_fit_the_sdks_models(sim: Running, cvm: Cvm, version: str) -> None:
    async with AsyncPhalaCloud(api_key="key-a", base_url=sim.api_prefix, version=version) as sdk:
        listed = await sdk.get_cvm_list({"page": 1, "page_size": 1})
        batch = await sdk.get_cvm_status_batch({"vm_uuids": [cvm.vm_uuid]})

    assert (listed.total, listed.pages, listed.items[0].name) == (2, 2, cvm.name)
    assert batch[cvm.vm_uuid].status == "running"


@pytest.mark.parametrize("version", ["2026-01-21", "2026-05-22", "2026-06-23"])
async def test_details_fit_the_sdks_models(sim: Running, cvm: Cvm, version: str) -> None:
    async with AsyncPhalaCloud(api_key="key-a", base_url=sim.api_prefix, version=version) as sdk:
        details = await sdk.get_cvm_info({"id": cvm.vm_uuid})

    assert details.name == cvm.name


def test_the_sdk_accepts_the_simulators_webhooks() -> None:
    world = World(cvms=1, frozen=True)
    what = webhook(world.cvms[0], "cvm.stopped", "evt_1", world.now)
    secret = "whsec_c2VjcmV0"
    sent = headers(what, secret, str(int(SystemClock().time())))
    event = parse_webhook_event(headers=sent, body=what.body.decode(), secret=secret)

    assert (event.id, event.event, event.data["cvm_name"]) == ("evt_1", "cvm.stopped", world.cvms[0].name)
