"""A stop does not wait for a Redis that hangs: every role ends within seconds, and cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from bridge.sealing import new_key
from bridge.simulator.server import serve
from bridge.simulator.world import World
from tests.commands import Command
from tests.servers import RealServer, eventually, free_port

PROMISED = 6.0
"""Seconds from the signal to the end of the process."""


@contextlib.contextmanager
def hanging(server: RealServer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def answers(url: str) -> Callable[[], bool]:
    def holds() -> bool:
        try:
            return httpx.get(url).status_code == 200
        except httpx.TransportError:
            return False

    return holds


@pytest.mark.parametrize("role", ["upstream", "standby", "dispatcher", "web", "up"])
async def test_a_role_ends_within_seconds_though_redis_hangs(tmp_path: Path, own_server: RealServer, role: str) -> None:
    port, probe, world = free_port(), free_port(), World(seed=7, cvms=7, frozen=True)
    async with serve(world=world, instant=True, operations=False) as sim:
        given = {
            "REDIS_URL": own_server.url,
            "PHALA_CLOUD_API_KEY": "key",
            "PHALA_CLOUD_API_PREFIX": sim.api_prefix,
            "BRIDGE_CVMS": "*",
            "BRIDGE_AUTH": "off",
            "BRIDGE_SECRET_KEY": new_key(),
            "HOST": "127.0.0.1",
            "PORT": str(port),
        }
        leader = Command(tmp_path, "upstream", **given) if role != "up" else None
        if leader is not None:
            await asyncio.to_thread(leader.shows, "leading")
        if role == "upstream":
            command = leader
        else:
            name = "upstream" if role == "standby" else role
            command = Command(tmp_path, name, BRIDGE_PROBE_PORT=str(probe), **given)
            ready = f"http://127.0.0.1:{port if role in ('web', 'up') else probe}/readyz"
            await asyncio.to_thread(eventually, answers(ready), f"{role} is ready")
        assert command is not None
        await asyncio.to_thread(eventually, lambda: own_server.call("XLEN", "{bridge}:log") >= 7, "all is seen")
        streams = [httpx.AsyncClient() for _ in range(2 if role in ("web", "up") else 0)]
        for http in streams:
            await http.send(http.build_request("GET", f"http://127.0.0.1:{port}/v1/events"), stream=True)
        await asyncio.sleep(1)
        with hanging(own_server):
            await asyncio.sleep(1)  # calls are on their way
            began = time.monotonic()
            command.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(command.process.wait, 30)
            took = time.monotonic() - began
            print(f"{role}: {took:.1f} s")
        assert took < PROMISED
        assert command.ends() == 0
        assert "Traceback" not in command.errors
        for http in streams:
            await http.aclose()
