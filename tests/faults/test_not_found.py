"""404s that are not about a CVM, and those that are: of proxies, of a wrong prefix, of the stream form of the route."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from bridge.simulator.server import serve
from bridge.simulator.world import World
from bridge.store.connection import connect
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshots
from tests.bridges import Whole, whole
from tests.commands import Command
from tests.faults.test_takeover import until
from tests.probes import readiness
from tests.servers import eventually, free_port

CVMS = 12
INGRESS: dict[str, Any] = {
    "route": "*",
    "times": None,
    "status": 404,
    "body": "404 page not found\n",
    "headers": {"Content-Type": "text/plain; charset=utf-8"},
}


async def transitions(bridge: Whole) -> list[tuple[str | None, str]]:
    """What each CVM became after its first sight."""
    events = [json.loads(event.json) for event in await bridge.log()]
    return [(each["subject"], each["data"]["to"]) for each in events if each["type"] == "cvm.transition"]


async def becomes(bridge: Whole, cvm_id: str, status: str) -> None:
    async def recorded() -> bool:
        return (cvm_id, status) in await transitions(bridge)

    await bridge.until(recorded, f"{cvm_id} is {status}")


async def asked(bridge: Whole, route: str, count: int) -> None:
    """Upstream is asked so often from now on."""

    async def requests() -> int:
        return int((await bridge.control("GET", "/counters"))["requests"].get(route, 0))

    before = await requests()

    async def reached() -> bool:
        return await requests() >= before + count

    await bridge.until(reached, f"{count} requests for {route}")


async def test_an_ingress_that_lost_its_routes_deletes_nothing_and_a_deletion_afterwards_is_told(
    redis_url: str,
) -> None:
    async with whole(redis_url, cvms=CVMS) as bridge:
        await bridge.until_seen(CVMS)
        gone, stopped = bridge.ids[:2]
        await bridge.control("POST", "/faults", json=INGRESS)
        await bridge.control("POST", "/streams/cut", json={"how": "close"})
        for cvm_id in bridge.ids:
            await ReferenceLookups(bridge.backend).hint(cvm_id)
        await asked(bridge, "state", 3 * CVMS)

        async def degraded() -> bool:
            return "404" in (await bridge.http.get(f"{bridge.url}/readyz")).json()["reason"]

        await bridge.until(degraded, "degraded")
        unknown = await bridge.http.get(f"{bridge.url}/v1/cvms/web-77")
        assert (unknown.status_code, unknown.json()["type"]) == (503, "urn:bridge:problem:upstream")
        await bridge.control("DELETE", "/faults")
        await bridge.control("DELETE", f"/cvms/{gone}")
        await becomes(bridge, gone, "deleted")
        await bridge.patch(stopped, status="stopped")
        await becomes(bridge, stopped, "stopped")
        assert sorted(await transitions(bridge)) == sorted([(gone, "deleted"), (stopped, "stopped")])


async def test_a_proxy_that_does_not_know_the_stream_form_leads_to_polling(redis_url: str) -> None:
    async with whole(redis_url, cvms=CVMS) as bridge:
        await bridge.until_seen(CVMS)
        await bridge.control("POST", "/faults", json={**INGRESS, "route": "stream"})
        await bridge.control("POST", "/streams/cut", json={"how": "end"})
        await asked(bridge, "stream", 3)
        for cvm_id in bridge.ids:
            await bridge.patch(cvm_id, status="stopped")
        for cvm_id in bridge.ids:
            await becomes(bridge, cvm_id, "stopped")
        assert len(await transitions(bridge)) == CVMS


async def test_a_mistyped_prefix_deletes_nothing_and_the_leader_is_not_ready(redis_url: str, tmp_path: Path) -> None:
    async with serve(world=World(seed=7, cvms=CVMS, frozen=True), operations=False) as sim:
        port, backend = free_port(), connect(redis_url, "bridge")
        settings = {
            "REDIS_URL": redis_url,
            "PHALA_CLOUD_API_KEY": "key",
            "BRIDGE_CVMS": "*",
            "BRIDGE_POLL_INTERVAL": "0.2",
            "BRIDGE_LEASE_SECONDS": "1",
            "BRIDGE_PROBE_PORT": str(port),
        }

        def run(prefix: str) -> Command:
            return Command(tmp_path, "upstream", PHALA_CLOUD_API_PREFIX=prefix, **settings)

        async def all_seen() -> bool:
            return [each.status for each in (await Snapshots(backend).all()).values()] == ["running"] * CVMS

        first = run(sim.api_prefix)
        try:
            await until(all_seen, "all are seen")
        finally:
            assert await asyncio.to_thread(first.ends, signal.SIGTERM) == 0
        mistyped = run(sim.api_prefix.replace("/v1", "/v2"))
        try:
            await asyncio.to_thread(eventually, lambda: readiness(port)[0] == 503, "not ready")
            assert "PHALA_CLOUD_API_PREFIX" in readiness(port)[1]
            await asyncio.to_thread(
                eventually, lambda: mistyped.errors.count("watch is stale") == CVMS, "every watch is stale"
            )
        finally:
            await asyncio.to_thread(mistyped.ends, signal.SIGTERM)
        events = [json.loads(event.json) for event in await Log(backend).read("0-0", 1000)]
        await backend.close()
    assert {each["data"].get("to") for each in events if each["type"].startswith("cvm.")} == {"running"}
    assert {each["data"]["reason"] for each in events if each["type"] == "watch.stale"} == {"not_found"}
    assert mistyped.errors.count("PHALA_CLOUD_API_PREFIX and the key") == 1


async def test_a_watch_that_ends_and_begins_again_and_a_hint_do_not_wait_for_a_stream(redis_url: str) -> None:
    settings = {"cvms": (), "stream_interval": 30, "stream_timeout": 600, "poll_interval": 600}
    async with whole(redis_url, cvms=1, time_scale=1.0, settings=settings) as bridge:
        await bridge.control("PATCH", "/settings", json={"instant": False})
        cvm_id = bridge.ids[0]
        watch = f"{bridge.url}/v1/cvms/{cvm_id}"

        async def streamed() -> bool:
            return (await bridge.cvm(cvm_id)).get("followed_by") == "stream"

        assert (await bridge.http.put(watch)).status_code == 201
        await bridge.until(streamed, "a stream")
        assert (await bridge.http.delete(watch)).status_code == 204

        async def dropped() -> bool:
            return (await bridge.log())[-1].type == "watch.dropped"

        await bridge.until(dropped, "the end of the watch")
        assert (await bridge.http.put(watch)).status_code == 201

        async def known_again() -> bool:
            return len([each for each in await bridge.log() if each.type == "cvm.state"]) == 2

        await bridge.until(known_again, "its state again")
        await bridge.until(streamed, "a stream of its own")
        await bridge.control("PATCH", f"/cvms/{cvm_id}", json={"status": "stopped"})
        await ReferenceLookups(bridge.backend).hint(cvm_id)
        await becomes(bridge, cvm_id, "stopped")
        counted = await bridge.control("GET", "/streams")
    assert counted["cvms"][cvm_id]["max"] == 1
