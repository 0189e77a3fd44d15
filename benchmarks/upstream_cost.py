"""What a bridge costs upstream, in virtual time against the model of Phala Cloud: requests a second at rest and while
upstream is down, and how long a first start takes. None of the CVMs changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.upstream.client import Listed, ListPage, Reading, StreamEvent
from bridge.upstream.errors import ServerError
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

SETTLED = 200.0
"""Seconds after the first start."""

SECONDS = 300.0
"""Seconds that are counted."""

CALM = 10.0
"""Seconds after a first start in which further reads still count for it."""

LEAVING = 30.0
"""Seconds after which what was under way when upstream failed has ended."""


class CountingClient(ModelClient):
    """Counts requests by kind. `hashed`: the list names other ids than the states carry."""

    hashed = False

    def __init__(self, cloud: Cloud, *given: Any) -> None:
        super().__init__(cloud, *given)
        self.cloud = cloud
        self.asked: Counter[str] = Counter()

    async def read_state(self, ref: str) -> Reading:
        self.asked["reads"] += 1
        return await super().read_state(ref.removeprefix("vm-"))

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        self.asked["batches"] += 1
        return await super().batch(ids)

    async def list_page(self, number: int) -> ListPage:
        self.asked["lists"] += 1
        return await super().list_page(number)

    def _listed(self, name: str, status: str) -> Listed:
        return (
            Listed(hashed_id=f"vm-{name}", name=name, status=status) if self.hashed else super()._listed(name, status)
        )

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        self.asked["streams"] += 1
        async with super().stream(ref, target=target, interval=interval, timeout=timeout) as events:
            yield events


@dataclass(frozen=True)
class Rest:
    """Requests a second by kind, over SECONDS."""

    asked: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.asked.values())


@dataclass(frozen=True)
class Start:
    """Seconds until Redis had every CVM's state, and reads of states until CALM seconds later, for each CVM."""

    seconds: float
    reads: float


@asynccontextmanager
async def leading(
    count: int, *, named: bool = False, hashed: bool = False
) -> AsyncIterator[tuple[CountingClient, Backend]]:
    """A first start. `named`: `BRIDGE_CVMS` has every name, else `*`."""
    cloud = Cloud([f"cvm-{number:05}" for number in range(count)])
    settings = Settings(cvms=tuple(cloud.status) if named else ("*",))
    async with one_leader(settings, cloud, CountingClient, rng=random.Random(1)) as (client, backend, _):
        client.hashed = hashed
        yield client, backend


async def _counted(client: CountingClient, seconds: float) -> Rest:
    client.asked.clear()
    await asyncio.sleep(seconds)
    return Rest({kind: count / seconds for kind, count in client.asked.items()})


async def at_rest(count: int, *, named: bool = False, seconds: float = SECONDS) -> Rest:
    async with leading(count, named=named) as (client, _):
        await asyncio.sleep(SETTLED)
        return await _counted(client, seconds)


async def in_an_outage(count: int, seconds: float = SECONDS) -> Rest:
    """Upstream answers 500 to everything."""
    async with leading(count) as (client, _):
        await asyncio.sleep(SETTLED)
        client.cloud.failing = ServerError
        await asyncio.sleep(LEAVING)
        return await _counted(client, seconds)


async def first_start(count: int, *, hashed: bool = False) -> Start:
    async with leading(count, hashed=hashed) as (client, backend):
        began = asyncio.get_running_loop().time()
        while await backend.client.hlen(backend.keys.state) < count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.1)
        seconds = asyncio.get_running_loop().time() - began
        await asyncio.sleep(CALM)
        return Start(seconds, client.asked["reads"] / count)


def run() -> None:
    print(f"upstream_cost: a leader with the default settings, virtual time, {SECONDS:g} s")
    logging.disable(logging.CRITICAL)
    print("                              requests/s     reads   batches     lists   streams")
    for title, scenario in (
        ("1 000 CVMs under *", at_rest(1_000)),
        ("5 CVMs under *, all streamed", at_rest(5)),
        ("300 CVMs by their names", at_rest(300, named=True)),
        ("300 CVMs, upstream is down", in_an_outage(300)),
    ):
        rest = run_virtual(scenario)
        kinds = "".join(f"{rest.asked.get(kind, 0.0):>10.2f}" for kind in ("reads", "batches", "lists", "streams"))
        print(f"  {title:<27} {rest.total:>10.2f}{kinds}", flush=True)
    for count, hashed in ((1_000, False), (1_000, True), (10_000, False)):
        start, ids = run_virtual(first_start(count, hashed=hashed)), "other" if hashed else "their"
        print(f"  first start of {count}, the list has {ids} ids: {start.seconds:.0f} s, {start.reads:.2f} reads each")
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    run()
