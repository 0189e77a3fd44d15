"""Processes on machines whose clocks are an hour wrong, one ahead and one behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx

from bridge.clock import unix
from bridge.simulator.server import serve
from bridge.simulator.world import World
from tests.commands import Command
from tests.servers import RealServer, eventually, free_port

SHIFT = """
import os, time
_time, _by = time.time, float(os.environ["SHIFTED_BY"])
time.time = lambda: _time() + _by
"""


def shifted(home: Path, hours: int, *arguments: str, **environment: str) -> Command:
    """A command on a machine whose clock is so many hours ahead."""
    modules = home / "shift"
    modules.mkdir(exist_ok=True)
    (modules / "sitecustomize.py").write_text(SHIFT)
    paths = f"{modules}{os.pathsep}{Path.cwd()}"
    return Command(home, *arguments, PYTHONPATH=paths, SHIFTED_BY=str(3600 * hours), **environment)


async def test_times_are_right_and_a_dead_leader_is_noticed_though_all_clocks_are_wrong(
    tmp_path: Path, own_server: RealServer
) -> None:
    port, world = free_port(), World(seed=7, cvms=1, frozen=True)
    async with serve(world=world, instant=True, operations=False) as sim, httpx.AsyncClient() as http:
        common = {"REDIS_URL": own_server.url, "BRIDGE_AUTH": "off", "BRIDGE_LEASE_SECONDS": "1"}
        upstream = {"PHALA_CLOUD_API_KEY": "key", "PHALA_CLOUD_API_PREFIX": sim.api_prefix, "BRIDGE_CVMS": "*"}
        leader = shifted(tmp_path, 1, "upstream", **common, **upstream)
        web = shifted(tmp_path, -1, "web", PORT=str(port), HOST="127.0.0.1", **common)
        cvm_id, url = world.cvms[0].vm_uuid, f"http://127.0.0.1:{port}"

        def seen() -> bool:
            return own_server.call("XLEN", "{bridge}:log") == 1 and httpx.get(f"{url}/readyz").status_code == 200

        await asyncio.to_thread(eventually, seen, "the first event")

        async def since(moment: str) -> list[dict[str, str]]:
            headers = {"Accept": "application/json"}
            answer = await http.get(f"{url}/v1/events", params={"since": moment}, headers=headers)
            return list(answer.json()["items"])

        (event,) = await since("2026-01-01T00:00:00Z")
        assert abs(unix(event["time"]) - time.time()) < 60
        assert await since(event["time"]) == [event]
        state = await http.get(f"{url}/api/v1/cvms/{cvm_id}/state")
        assert (state.status_code, int(state.headers["Age"]) < 60) == (200, True)
        skew = [
            line for line in (await http.get(f"{url}/metrics")).text.splitlines() if line.startswith("bridge_clock_")
        ]
        assert -3660 < float(skew[0].split()[-1]) < -3540
        check = shifted(tmp_path, 1, "check", **common)
        check.ends()
        assert "s ahead of Redis's" in check.output
        leader.ends(signal.SIGKILL)

        def refused() -> bool:
            return httpx.get(f"{url}/api/v1/cvms/{cvm_id}/state").status_code == 503

        await asyncio.to_thread(eventually, refused, "a state that nobody vouches for is refused")
        cvm = (await http.get(f"{url}/v1/cvms/{cvm_id}")).json()
        assert (cvm["stale_reason"], cvm["status"]) == ("no_leader", "running")
        assert web.ends(signal.SIGTERM) == 0
