"""Seconds between two looks at a CVM, to the poll interval: in virtual time, on a clock that wakes late.

A look is a batch that names the CVM, or a read of its state. Most rows begin as a restart does: Redis has the snapshots
and digests of the leader before. The busy machine is a clock whose every sleep is longer by `LATE` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bridge.config import Settings
from bridge.events import parse_state
from bridge.store.connection import Backend
from bridge.store.snapshots import Snapshot, write_batch_digests
from bridge.store.watches import Watches
from bridge.upstream.batch_reader import digest
from bridge.upstream.client import Reading
from bridge.upstream.errors import BatchAbsentError
from tests.fakes import fake_backend, redis_time
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import VirtualClock, run_virtual

LATE = 0.03
"""Seconds: at 10 000 CVMs a plan takes ten to thirty milliseconds of the loop."""


@dataclass(frozen=True)
class Row:
    """`batch`: whether upstream has a batch route."""

    cvms: int
    poll_interval: float
    batch: bool = True

    @property
    def interval(self) -> float:
        """The interval that is promised: ten reads a second without a batch route."""
        return self.poll_interval if self.batch else max(self.poll_interval, self.cvms / 10)


ROWS = (
    Row(10, 0.5),
    Row(10, 0.5, batch=False),
    Row(100, 10, batch=False),
    Row(300, 10, batch=False),
    Row(100, 10),
    Row(1_000, 10),
    Row(10_000, 10),
)


class LateClock(VirtualClock):
    """Wakes late from every sleep."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + LATE)


class SeenClient(ModelClient):
    """Notes when each CVM was looked at."""

    batch_route = True
    looks: dict[str, list[float]]

    async def read_state(self, ref: str) -> Reading:
        self.looks[ref].append(self._now.monotonic())
        return await super().read_state(ref)

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        if not self.batch_route:
            raise BatchAbsentError(status=404)
        for cvm_id in ids:
            self.looks[cvm_id].append(self._now.monotonic())
        return await super().batch(ids)


async def restarted(backend: Backend, cvm_ids: Sequence[str]) -> None:
    """Writes what the leader before has left: watches, snapshots, digests."""
    state, word = parse_state('{"status":"running"}'), digest({"status": "running"})
    since = "2026-11-24T16:00:00.000Z"
    snapshots = {
        cvm_id: Snapshot(cvm_id, state.raw, "running", None, since, since, "1-0").to_json() for cvm_id in cvm_ids
    }
    await Watches(backend).renew(cvm_ids)
    await backend.client.hset(backend.keys.state, mapping=snapshots)
    await write_batch_digests(backend, dict.fromkeys(cvm_ids, ("1-0", word)))


async def _looks(row: Row, seconds: float) -> list[list[float]]:
    """When each CVM was looked at, in seconds after the restart."""
    clock, backend, cloud = LateClock(), fake_backend(), Cloud([f"cvm-{number:05}" for number in range(row.cvms)])
    settings = Settings(poll_interval=row.poll_interval, max_streams=0, watch_linger=100_000)
    with redis_time(clock):
        await restarted(backend, list(cloud.status))
    async with one_leader(settings, cloud, SeenClient, backend, clock=clock, rng=random.Random(1)) as (client, _, _):
        client.looks, client.batch_route = {name: [] for name in cloud.status}, row.batch
        await asyncio.sleep(seconds)
    await backend.close()
    return list(client.looks.values())


def measure(row: Row) -> tuple[float, float, float]:
    """In intervals: until every CVM was looked at once, and between two looks at one, the mean and the longest."""
    looks = run_virtual(_looks(row, 6 * row.interval))
    first = max(each[0] for each in looks)
    gaps = [later - sooner for each in looks for sooner, later in itertools.pairwise(each)]
    return first / row.interval, statistics.mean(gaps) / row.interval, max(gaps) / row.interval


def run() -> None:
    print(f"pace: intervals between two looks at a CVM, of six after a restart; every sleep {LATE:g} s longer")
    print("    CVMs  interval s  batch route  all looked at  mean  longest")
    logging.disable(logging.WARNING)
    for row in ROWS:
        first, mean, longest = measure(row)
        route = "yes" if row.batch else "no"
        print(
            f"  {row.cvms:>6}  {row.interval:>10g}  {route:>11}  {first:>13.2f}  {mean:>4.2f}  {longest:>7.2f}",
            flush=True,
        )
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    run()
