"""Two replicas of `bridge upstream` as processes: frozen, woken and killed, while upstream counts our streams."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from bridge.events import ENDPOINT_DISABLED
from bridge.simulator.server import Running, serve
from bridge.simulator.world import World
from bridge.store.connection import Backend, connect
from bridge.store.endpoints import Endpoints
from bridge.store.log import Log
from tests.lanes import endpoint

STATUSES = ("stopping", "stopped", "starting", "running")


def replica(sim: Running, redis_url: str, cvms: str = "*") -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path.cwd()),
        "REDIS_URL": redis_url,
        "PHALA_CLOUD_API_KEY": "key",
        "PHALA_CLOUD_API_PREFIX": sim.api_prefix,
        "BRIDGE_CVMS": cvms,
        "BRIDGE_LEASE_SECONDS": "1",
        "BRIDGE_POLL_INTERVAL": "0.2",
        "BRIDGE_STREAM_TIMEOUT": "10",
        "BRIDGE_AUTH": "off",
    }
    return subprocess.Popen([sys.executable, "-m", "bridge", "upstream"], env=environment, stderr=subprocess.PIPE)


async def until(holds: Callable[[], Awaitable[Any]], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not await holds():  # noqa: ASYNC110 - another process's doing has no event
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise AssertionError(f"{what} did not come true") from error


async def all_become(backend: Backend, sim: Running, http: httpx.AsyncClient, status: str) -> None:
    for cvm in sim.simulator.world.cvms:
        answer = await http.patch(f"{sim.control}/cvms/{cvm.vm_uuid}", json={"status": status, "push": True})
        assert answer.is_success

    async def recorded() -> bool:
        last = {
            event.cvm_id: json.loads(event.json)["data"].get("to")
            for event in await Log(backend).read("0-0", 9999)
            if event.cvm_id
        }
        return list(last.values()) == [status] * 12

    await until(recorded, status)


async def leave_notices(backend: Backend, enough: asyncio.Event) -> list[str]:
    """Each time that the endpoint is disabled is to be one event, with a reason of its own; all reasons."""
    left: list[str] = []
    endpoints = Endpoints(backend)
    await endpoints.create(endpoint())
    while not enough.is_set():
        left.append(str(len(left)))
        await endpoints.disable("e", left[-1])
        await endpoints.enable("e")
        await asyncio.sleep(0.05)
    return left


async def told(backend: Backend) -> list[str]:
    """The reasons in the events that the notices became."""
    events = await Log(backend).read("0-0", 9999)
    return [json.loads(event.json)["data"]["reason"] for event in events if event.type == ENDPOINT_DISABLED]


async def leader(backend: Backend) -> str:
    """Who led last, whether it still does or not."""
    return str(await backend.call(backend.client.hget(backend.keys.leader, "holder")))


async def taken_over(backend: Backend, sim: Running, http: httpx.AsyncClient, why: str, status: str) -> None:
    """Called the moment after the leader stopped. Prints when another led, and when all CVMs' change was recorded."""
    began, holder, last = time.time(), await leader(backend), await Log(backend).position()
    assert last is not None

    async def led() -> bool:
        return await leader(backend) != holder

    async with asyncio.TaskGroup() as group:
        change = group.create_task(all_become(backend, sim, http, status))
        await until(led, f"the standby takes over: {why}")
        leads = time.time() - began
        await change
    written = [int(event.id.partition("-")[0]) / 1000 - began for event in await Log(backend).read(last.id, 9999)]
    print(f"{why}: another leads after {leads:.2f} s, first event {written[0]:.2f} s, all 12 {written[-1]:.2f} s")


async def through_trouble(backend: Backend, sim: Running, http: httpx.AsyncClient, status: int, to: str) -> None:
    """For a while upstream answers nothing but `status`, and every stream is cut; what changed then is recorded."""
    fault = {"route": "*", "times": None, "status": status, "headers": {"Retry-After": "1"}}
    assert (await http.post(f"{sim.control}/faults", json=fault)).is_success
    await http.post(f"{sim.control}/streams/cut", json={"how": "reset"})
    for cvm in sim.simulator.world.cvms:
        await http.patch(f"{sim.control}/cvms/{cvm.vm_uuid}", json={"status": to, "push": True})
    await asyncio.sleep(1.2)
    asked = (await http.get(f"{sim.control}/faults")).json()["items"][0]["hits"]
    assert 0 < asked < 150, "upstream in trouble is neither forgotten nor hammered"
    await http.delete(f"{sim.control}/faults")
    await all_become(backend, sim, http, to)


async def test_no_sixth_stream_and_no_lost_change_through_freeze_kill_and_trouble(redis_url: str) -> None:
    world = World(seed=7, cvms=12, frozen=True)
    async with serve(world=world, time_scale=0.1, instant=True, operations=False) as sim, httpx.AsyncClient() as http:
        backend = connect(redis_url, "bridge")
        first = second = replica(sim, redis_url)
        enough = asyncio.Event()
        try:
            await until(lambda: Log(backend).position(), "the first leads")
            leaving = asyncio.create_task(leave_notices(backend, enough))
            second = replica(sim, redis_url)
            await all_become(backend, sim, http, "stopping")
            first.send_signal(signal.SIGSTOP)
            await taken_over(backend, sim, http, "frozen", "stopped")
            first.send_signal(signal.SIGCONT)
            await all_become(backend, sim, http, "starting")
            await through_trouble(backend, sim, http, 500, "running")
            second.kill()
            await taken_over(backend, sim, http, "killed", "stopping")
            await http.post(f"{sim.control}/streams/cut", json={"how": "reset"})
            await all_become(backend, sim, http, "stopped")
            await through_trouble(backend, sim, http, 429, "starting")
            second.communicate()
            second = replica(sim, redis_url)
            await all_become(backend, sim, http, "running")
            first.terminate()
            await taken_over(backend, sim, http, "planned stop", "stopping")
            assert await asyncio.to_thread(first.wait, 20) == 0
            enough.set()
            left = await leaving

            async def all_told() -> bool:
                return len(await told(backend)) >= len(left)

            await until(all_told, "each notice became an event")
            assert await told(backend) == left
            assert len(left) > 20
        finally:
            enough.set()
            for process in {first, second}:
                process.kill()
                process.communicate()
        counted = (await http.get(f"{sim.control}/streams")).json()
        _assert_whole([json.loads(event.json) for event in await Log(backend).read("0-0", 9999)])
        await backend.close()
    assert counted["users"]["demo"]["max"] <= 5
    assert counted["users"]["demo"]["refused"] == 0
    assert max(each["max"] for each in counted["cvms"].values()) == 1


def _assert_whole(events: list[dict[str, Any]]) -> None:
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    last: dict[str, str | None] = {}
    for event in events:
        if event["type"].startswith("cvm."):
            assert event["data"]["from"] == last.get(event["subject"])
            last[event["subject"]] = event["data"]["to"]
