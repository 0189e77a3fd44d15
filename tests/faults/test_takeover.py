"""Two replicas of `bridge upstream` as processes: frozen, woken and killed, while upstream counts our streams."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from bridge.simulator.server import Running, serve
from bridge.simulator.world import World
from bridge.store.connection import Backend, connect
from bridge.store.log import Log
from bridge.store.notes import Notes

STATUSES = ("stopping", "stopped", "starting", "running")


def replica(sim: Running, redis_url: str) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path.cwd()),
        "REDIS_URL": redis_url,
        "PHALA_CLOUD_API_KEY": "key",
        "PHALA_CLOUD_API_PREFIX": sim.api_prefix,
        "BRIDGE_CVMS": "*",
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
            event.cvm_id: json.loads(event.json)["data"].get("to") for event in await Log(backend).read("0-0", 9999)
        }
        return list(last.values()) == [status] * 12

    await until(recorded, status)


async def leader(backend: Backend) -> str:
    return str((await Notes(backend).read()).get("leader"))


async def test_no_sixth_stream_and_no_lost_change_through_freeze_and_kill(redis_url: str) -> None:
    world = World(seed=7, cvms=12, frozen=True)
    async with serve(world=world, time_scale=0.1, instant=True) as sim, httpx.AsyncClient() as http:
        backend = connect(redis_url, "bridge")
        first = replica(sim, redis_url)
        await until(lambda: _led_by_other(backend, "None"), "the first leads")
        second = replica(sim, redis_url)
        try:
            await all_become(backend, sim, http, "stopping")
            holder = await leader(backend)
            first.send_signal(signal.SIGSTOP)
            await until(lambda: _led_by_other(backend, holder), "the standby takes over from a frozen leader")
            await all_become(backend, sim, http, "stopped")
            first.send_signal(signal.SIGCONT)
            await all_become(backend, sim, http, "starting")
            holder = await leader(backend)
            second.kill()
            await until(lambda: _led_by_other(backend, holder), "the woken one takes over from a killed leader")
            await http.post(f"{sim.control}/streams/cut", json={"how": "reset"})
            await all_become(backend, sim, http, "running")
            first.terminate()
            assert await asyncio.to_thread(first.wait, 20) == 0
        finally:
            for process in (first, second):
                process.kill()
                process.communicate()
        counted = (await http.get(f"{sim.control}/streams")).json()
        _assert_whole([json.loads(event.json) for event in await Log(backend).read("0-0", 9999)])
        await backend.close()
    assert counted["users"]["demo"]["max"] <= 5
    assert counted["users"]["demo"]["refused"] == 0
    assert max(each["max"] for each in counted["cvms"].values()) == 1


async def _led_by_other(backend: Backend, holder: str) -> bool:
    return await leader(backend) not in (holder, "None")


def _assert_whole(events: list[dict[str, Any]]) -> None:
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    last: dict[str, str | None] = {}
    for event in events:
        if event["type"].startswith("cvm."):
            assert event["data"]["from"] == last.get(event["subject"])
            last[event["subject"]] = event["data"]["to"]
