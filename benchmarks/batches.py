"""What one CVM costs in a batch, by the size of the batch: why `planner.BATCH_SIZE` is what it is.

Whole calls through the client and its parser against the simulator on a socket, in one process: the sum of both sides.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time

from bridge.clock import SystemClock
from bridge.simulator.server import serve
from bridge.simulator.world import World
from bridge.upstream.client import PhalaClient
from bridge.upstream.planner import BATCH_SIZE

SIZES = (10, 25, 50, 100, 200, 500)
CALLS = 30


async def milliseconds(client: PhalaClient, ids: list[str]) -> float:
    """Of CPU, the median call: what else the machine does counts for nothing."""
    times = []
    for _ in range(CALLS):
        began = time.process_time()
        answer = await client.batch(ids)
        times.append((time.process_time() - began) * 1000)
        assert len(answer) == len(ids)
    return statistics.median(times)


async def measure() -> dict[int, float]:
    world = World(seed=7, cvms=max(SIZES), frozen=True)
    async with serve(world=world) as sim:
        client = PhalaClient(sim.api_prefix, "key", clock=SystemClock())
        ids = [cvm.vm_uuid for cvm in world.cvms]
        await milliseconds(client, ids[:10])  # the connection stands
        found = {size: await milliseconds(client, ids[:size]) for size in SIZES}
        await client.aclose()
    return found


def run() -> None:
    print(f"batches: /status/batch by size (now {BATCH_SIZE})")
    print("    size  CPU ms  µs a CVM  calls a second for 1 000 CVMs each 10 s")
    logging.disable(logging.WARNING)
    found = asyncio.run(measure())
    logging.disable(logging.NOTSET)
    for size, spent in found.items():
        print(f"  {size:>6}  {spent:>6.2f}  {spent / size * 1000:>8.0f}  {1000 / size / 10:>6.1f}")


if __name__ == "__main__":
    run()
