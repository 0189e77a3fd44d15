"""What an idle bridge costs Redis: commands a second, and the growth of its append-only file.

One leader, a front end and a dispatcher with the default intervals, 1 000 pinned CVMs at the simulator of which none
changes, a real server. Commands inside scripts count too, as the server counts them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.process.dispatcher import open_dispatcher
from bridge.store.connection import connect
from tests.bridges import Whole, whole
from tests.servers import RealServer

CVMS = 1_000
SECONDS = 120.0
SETTLED = 45.0
"""Seconds after the first sight of the last CVM: by then each has a batch answer that belongs to its state."""

GOAL = 0.1
"""GiB a day for each 1 000 CVMs."""

SETTINGS: dict[str, Any] = {
    "poll_interval": 10.0,
    "stream_interval": 5,
    "stream_timeout": 120,
    "lease_seconds": 10.0,
    "secret_key": (b"A" * 43 + b"=",),
}


@dataclass(frozen=True)
class Cost:
    """Over `seconds`; `commands` are calls by command, `written` bytes of the append-only file."""

    seconds: float
    commands: dict[str, int]
    written: int

    @property
    def commands_a_second(self) -> float:
        return sum(self.commands.values()) / self.seconds

    @property
    def gib_a_day(self) -> float:
        return self.written / self.seconds * 86_400 / 2**30


def _counts(server: RealServer) -> dict[str, int]:
    stats = server.call("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}


def _written(server: RealServer) -> int:
    return int(server.call("INFO", "persistence")["aof_current_size"])


async def measure(cvms: int = CVMS, seconds: float = SECONDS, settled: float = SETTLED) -> Cost:
    options = {"appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
    with RealServer(append_only=True, options=options) as server:
        async with _bridge(server, cvms) as bridge:
            await _until_seen(bridge, cvms)
            await asyncio.sleep(settled)
            before, size, began = _counts(server), _written(server), time.monotonic()
            await asyncio.sleep(seconds)
            after, lasted = _counts(server), time.monotonic() - began
            calls = {name: count - before.get(name, 0) for name, count in after.items() if name != "info"}
            return Cost(lasted, {name: count for name, count in calls.items() if count}, _written(server) - size)


@asynccontextmanager
async def _bridge(server: RealServer, cvms: int) -> AsyncIterator[Whole]:
    async with whole(server.url, cvms=cvms, time_scale=1.0, settings=SETTINGS) as bridge:
        stop, backend = asyncio.Event(), connect(server.url, "bridge")
        async with open_dispatcher(Settings(**SETTINGS), backend, SystemClock()) as (dispatcher, _):
            running = asyncio.create_task(dispatcher.run(stop))
            yield bridge
            stop.set()
            await running
        await backend.close()


async def _until_seen(bridge: Whole, cvms: int) -> None:
    while await bridge.backend.client.hlen(bridge.backend.keys.state) < cvms:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(1)


def run() -> None:
    print(f"redis_cost: {CVMS} CVMs of which none changes, {SECONDS:g} s, a leader, a front end and a dispatcher")
    logging.disable(logging.WARNING)
    cost = asyncio.run(measure())
    logging.disable(logging.NOTSET)
    print(f"  {cost.commands_a_second:8.1f} commands/s")
    print(f"  {cost.written / cost.seconds:8.0f} bytes/s of append-only file")
    print(f"  {cost.gib_a_day:8.3f} GiB a day (goal: {GOAL * CVMS / 1000:g})")
    for name, count in sorted(cost.commands.items(), key=lambda each: -each[1])[:12]:
        print(f"  {count / cost.seconds:8.2f}  {name}")


if __name__ == "__main__":
    run()
