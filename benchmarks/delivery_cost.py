"""What a delivery costs Redis: commands of one dispatcher, those in scripts included, as the server counts them.

The history of each endpoint is full, so that each delivery also pushes an older one out. What the log's writer needs is
left out. `burst`: the events wait when the dispatcher starts. `one by one`: an event every PAUSE seconds.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass

import aiohttp

from benchmarks.webhooks import Pen, drained, process, registered
from bridge.store.limits import LaneLimits
from tests.servers import free_port

KEPT = LaneLimits().finished
PAUSE = 0.03
SETTLED = 1.0
"""Seconds until the last results are recorded."""


@dataclass(frozen=True)
class Cost:
    """Calls by command."""

    what: str
    deliveries: int
    calls: Counter[str]

    def __str__(self) -> str:
        per = {name: count / self.deliveries for name, count in self.calls.most_common() if count > 0}
        most = ", ".join(f"{name} {each:.2f}" for name, each in list(per.items())[:12])
        return f"  {self.what:28}{sum(per.values()):6.1f} commands a delivery\n      {most}"


async def _calls(pen: Pen) -> Counter[str]:
    stats = await pen.backend.client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()})


async def _append(pen: Pen, events: int, pause: float = 0.0) -> None:
    for number in range(events):
        await pen.append(f"cvm-{number}", number)
        await asyncio.sleep(pause)


async def measure(session: aiohttp.ClientSession, sink: str, endpoints: int, events: int, kept: int) -> list[Cost]:
    name, deliveries = f"{endpoints} endpoints", endpoints * events
    async with registered(sink, endpoints) as (pen, environment):
        await _append(pen, kept)
        with process("-m", "bridge", "dispatcher", **environment):
            await drained(session, sink, endpoints * kept)
            await asyncio.sleep(SETTLED)
        start = await _calls(pen)
        await _append(pen, events)
        appended = await _calls(pen)
        with process("-m", "bridge", "dispatcher", **environment):
            await drained(session, sink, deliveries)
            await asyncio.sleep(SETTLED)
            burst = await _calls(pen)
            await _append(pen, events, PAUSE)
            await drained(session, sink, deliveries)
            await asyncio.sleep(SETTLED)
            paced = await _calls(pen)
    paced.subtract(burst)
    paced.subtract(appended - start)
    burst.subtract(appended)
    return [Cost(f"{name}, burst", deliveries, burst), Cost(f"{name}, one by one", deliveries, paced)]


async def _measure_all(chosen: list[tuple[int, int, int]]) -> None:
    port = free_port()
    sink = f"http://127.0.0.1:{port}"
    with process("-m", "benchmarks.sink", str(port)) as started:
        assert started.stdout is not None
        await asyncio.to_thread(started.stdout.readline)
        async with aiohttp.ClientSession() as session:
            for each in chosen:
                for cost in await measure(session, sink, *each):
                    print(cost, flush=True)


def run() -> None:
    kept = int(sys.argv[1]) if len(sys.argv) > 1 else KEPT
    print(f"delivery_cost: one dispatcher, a local sink; each endpoint has {kept} deliveries in its history")
    asyncio.run(_measure_all([(10, 300, kept), (1, 300, kept)]))


if __name__ == "__main__":
    run()
