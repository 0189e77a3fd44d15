"""How long a new leader takes until it knows every CVM of a large workspace, and what it asks for it.

    python -m benchmarks.workspace [CVMS…]

Virtual time, upstream is the tests' model, which answers in 50 ms.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections import Counter
from dataclasses import dataclass

from bridge.clock import Clock
from bridge.config import Settings
from bridge.store.snapshots import Snapshots
from bridge.upstream.client import Reading
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

CVMS = (1_000, 10_000)
LOOK_EVERY = 0.5
PATIENCE = 1_200.0


@dataclass(frozen=True)
class Known:
    """`seconds` until every CVM had a state; what was asked until then."""

    cvms: int
    seconds: float
    reads: int
    requests: int
    most_in_a_second: int


def become_known(cvms: int) -> Known:
    return run_virtual(_become_known(cvms))


async def _become_known(cvms: int) -> Known:
    cloud, reads = Cloud([f"cvm-{number:05}" for number in range(cvms)]), Counter[str]()

    class Counting(ModelClient):
        async def read_state(self, ref: str) -> Reading:
            reads[ref] += 1
            return await super().read_state(ref)

    def client(cloud: Cloud, clock: Clock, thawed: asyncio.Event) -> ModelClient:
        return Counting(cloud, clock, thawed)

    async with one_leader(Settings(cvms=("*",)), cloud, client, rng=random.Random(1)) as (_, backend, _leader):
        began = asyncio.get_running_loop().time()
        while await _known(Snapshots(backend)) < cvms:
            await asyncio.sleep(LOOK_EVERY)
            assert asyncio.get_running_loop().time() < began + PATIENCE
        seconds = asyncio.get_running_loop().time() - began
        return Known(cvms, seconds, reads.total(), cloud.requests.total(), max(cloud.requests.values()))


async def _known(snapshots: Snapshots) -> int:
    return sum(each.status is not None for each in (await snapshots.all()).values())


def run(sizes: tuple[int, ...] = CVMS) -> None:
    logging.disable(logging.WARNING)
    print("workspace: a new leader and BRIDGE_CVMS=*, virtual time")
    print("   CVMs  seconds  reads a CVM  requests a second  most in a second")
    for cvms in sizes:
        known = become_known(cvms)
        print(
            f"  {known.cvms:>5}  {known.seconds:>7.1f}  {known.reads / known.cvms:>11.3f}"
            f"  {known.requests / known.seconds:>17.1f}  {known.most_in_a_second:>16}",
            flush=True,
        )
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    run(tuple(map(int, sys.argv[1:])) or CVMS)
