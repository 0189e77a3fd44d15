"""A simulator alone beside a bridge on a simulator: the same changes for both, and what their clients get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from bridge.simulator.server import Running, serve
from bridge.simulator.world import World
from tests.bridges import Whole
from tests.real.fronts import Front
from tests.servers import PATIENCE

Event = tuple[str, dict[str, Any]]

KEY = {"X-API-Key": "any"}


@asynccontextmanager
async def alone(cvms: int) -> AsyncIterator[Running]:
    """The same world as in `whole`, without a bridge and without the limit that makes one necessary."""
    async with serve(world=World(seed=7, cvms=cvms, frozen=True), instant=True) as sim:
        sim.simulator.quota.limit = 1000
        yield sim


async def both(bridge: Whole, sim: Running, method: str, path: str, change: dict[str, Any] | None = None) -> None:
    body = None if change is None else {"push": True, **change}
    for control in (bridge.sim.control, sim.control):
        answer = await bridge.http.request(method, f"{control}{path}", json=body)
        assert answer.is_success, answer.text


async def recorded(prefix: str, path: str) -> list[Event]:
    """The events that one client gets, without the parts that change from second to second."""
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.get(f"{prefix}{path}", headers=KEY)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    found: list[Event] = []
    # Split at line feeds only: the simulator's JSON has characters at which other splitters end a line.
    for block in answer.content.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), normal(json.loads(data.removeprefix("data: ")))))
    return found


def normal(data: dict[str, Any]) -> dict[str, Any]:
    left = {key: value for key, value in data.items() if key != "uptime"}
    return {**left, "elapsed": left["elapsed"] >= 0} if "elapsed" in left else left


async def until_subscribed(bridge: Whole | Front, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await subscribed(bridge) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def subscribed(bridge: Whole | Front) -> float:
    text = (await bridge.http.get(f"{bridge.url}/metrics")).text
    return float(next(line for line in text.splitlines() if line.startswith("bridge_subscribers ")).split()[1])
