"""The published JavaScript SDK and the CLI, pointed at the bridge by one environment variable and nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.bridges import whole
from tests.node.runtime import phala, run
from tests.real.dropins import alone, both, normal, until_subscribed


def pointed(prefix: str) -> dict[str, str]:
    return {"PHALA_CLOUD_API_PREFIX": prefix, "PHALA_CLOUD_API_KEY": "any"}


async def script(prefix: str, **given: Any) -> Any:
    return await asyncio.to_thread(run, "watch.mjs", {"count": 1, "abort": False, **given}, pointed(prefix))


async def test_phalas_sdk_is_told_by_the_bridge_what_the_simulator_alone_tells(redis_url: str) -> None:
    async with whole(redis_url, cvms=1, time_scale=1.0) as bridge, alone(1) as sim:
        await bridge.until_seen(1)
        (cvm_id,) = bridge.ids
        prefixes = (f"{bridge.url}/api/v1", sim.api_prefix)
        told = [asyncio.create_task(script(prefix, id=cvm_id, target="stopped", count=24)) for prefix in prefixes]
        await until_subscribed(bridge, 24)
        await bridge.until(lambda: counted(sim.simulator.quota.streams()), "24 streams of the simulator")
        for status in ("stopping", "stopped"):
            await both(bridge, sim, "PATCH", f"/cvms/{cvm_id}", {"status": status})
        ours, its = [normalised(await telling) for telling in told]
        assert ours == its
        assert [event["type"] for event in ours["watched"][0]["events"]] == ["state", "state", "state", "complete"]
        assert ours["watched"][23]["state"]["status"] == "stopped"


async def counted(streams: Any) -> bool:
    return len(list(streams)) == 24


def normalised(told: Any) -> Any:
    for watched in told["watched"]:
        watched["events"] = [{**event, "data": normal(event["data"])} for event in watched["events"]]
        watched["state"] = normal(watched["state"])
    told["state"] = normal(told["state"])
    return told


async def test_phalas_sdk_aborts_a_watch_and_nothing_is_left(redis_url: str) -> None:
    async with whole(redis_url, cvms=1) as bridge:
        await bridge.until_seen(1)
        told = await script(f"{bridge.url}/api/v1", id=bridge.ids[0], target="stopped", count=5, abort=True)
        assert [watched["error"] for watched in told["watched"]] == ["WatchAbortedError"] * 5
        assert [len(watched["events"]) for watched in told["watched"]] == [1] * 5
        await until_subscribed(bridge, 0)


async def cli(prefix: str, *arguments: str) -> tuple[int, str]:
    return await asyncio.to_thread(phala, arguments, pointed(prefix))


async def test_the_cli_says_by_the_bridge_what_it_says_without(redis_url: str) -> None:
    """`phala api` is what reads the state route; the other commands read routes that the passthrough relays."""
    async with whole(redis_url, cvms=2, settings={"passthrough": True}) as bridge:
        await bridge.until_seen(2)
        cvm = bridge.sim.simulator.world.cvms[0]
        await bridge.patch(cvm.vm_uuid, status="stopped")  # no uptime then
        said, its_prefix = list[str](), bridge.sim.api_prefix
        commands = (
            ("api", f"/cvms/{cvm.vm_uuid}/state"),
            ("api", "/cvms/nobody/state"),
            ("api", "/status/batch", "-X", "POST", "-d", json.dumps({"vm_uuids": [cvm.vm_uuid]})),
        )
        for command, status in zip(commands, (0, 1, 0), strict=True):
            ours, its = await asyncio.gather(
                *[cli(prefix, *command) for prefix in (f"{bridge.url}/api/v1", its_prefix)]
            )
            assert ours == its
            assert ours[0] == status
            said.append(ours[1])
        assert json.loads(said[0])["status"] == "stopped"
