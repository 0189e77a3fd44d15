"""Seconds from a change at upstream to its event on Redis's channel, for streamed, polled and hinted CVMs.

The default intervals (streams look every 5 s, polls come every 10 s), the simulator in real time, a real server. A
hint is Phala Cloud's webhook, posted the moment after the change: what their delivery takes comes on top.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.store.connection import Backend
from tests.bridges import Whole, whole
from tests.servers import RealServer

CVMS = 60
HINTED = 20
SECONDS = 50.0
SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="  # noqa: S105 - of a simulator
# None of them in motion: those would take the streams from each other.
STATUSES = ("running", "stopped", "exited", "error")
POLL_INTERVAL = 10.0
SETTINGS = {
    "poll_interval": POLL_INTERVAL,
    "stream_interval": 5,
    "stream_timeout": 120,
    "lease_seconds": 10.0,
    "webhook_secret": SECRET,
}


class Arrivals:
    """Events as they are published: when, and who saw it first."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], asyncio.Future[tuple[float, str]]] = {}

    def of(self, cvm_id: str, to: str) -> asyncio.Future[tuple[float, str]]:
        """The moment of this CVM's next event to that status, and what it was observed by."""
        found = self._waiting[cvm_id, to] = asyncio.get_running_loop().create_future()
        return found

    async def listen(self, backend: Backend) -> None:
        async with backend.client.pubsub() as feed:
            await feed.subscribe(backend.keys.events)
            while True:
                message = await feed.get_message(ignore_subscribe_messages=True, timeout=None)
                if message is None:
                    continue
                data = json.loads(message["data"])["data"]
                waiting = self._waiting.pop((data["cvm_id"], data.get("to", "")), None)
                if waiting is not None:
                    waiting.set_result((time.monotonic(), data["observed_by"]))


async def follow(
    bridge: Whole, arrivals: Arrivals, cvm_id: str, hinted: bool, found: dict[str, list[float]], until: float
) -> None:
    """Changes one CVM again and again, each time once the last change has arrived and a while has passed."""
    rng, status = random.Random(cvm_id), "running"
    while time.monotonic() < until:
        await asyncio.sleep(rng.uniform(0.0, POLL_INTERVAL))  # any moment between two looks
        status = rng.choice([each for each in STATUSES if each != status])
        arrival, began = arrivals.of(cvm_id, status), time.monotonic()
        await bridge.http.patch(f"{bridge.sim.control}/cvms/{cvm_id}", json={"status": status})
        if hinted:
            sent = {"url": f"{bridge.url}/v1/upstream/webhooks", "secret": SECRET, "event": "cvm.updated"}
            await bridge.control("POST", "/webhooks/send", json={**sent, "cvm": cvm_id})
        at, observed_by = await arrival
        kind = "streamed" if observed_by == "stream" else "hinted" if hinted else "polled"
        found[kind].append(at - began)


async def measure(seconds: float = SECONDS, cvms: int = CVMS) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    async with _settled(cvms) as bridge:
        arrivals, until = Arrivals(), time.monotonic() + seconds
        listening = asyncio.create_task(arrivals.listen(bridge.backend))
        async with asyncio.TaskGroup() as group:
            for number, cvm_id in enumerate(bridge.ids):
                group.create_task(follow(bridge, arrivals, cvm_id, number < HINTED, found, until))
        listening.cancel()
        await asyncio.wait([listening])
    return found


@asynccontextmanager
async def _settled(cvms: int) -> AsyncIterator[Whole]:
    """A bridge that has seen every CVM, and whose first batches are through."""
    with RealServer() as server:
        async with whole(server.url, cvms=cvms, time_scale=1.0, settings=SETTINGS) as bridge:
            await bridge.control("PATCH", "/settings", json={"instant": False})
            await bridge.until_seen(cvms)
            await asyncio.sleep(POLL_INTERVAL)
            yield bridge


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    return sorted(values)[max(0, -int(-len(values) * share // 1) - 1)]


def run() -> None:
    print(f"freshness: {CVMS} CVMs, {SECONDS:g} s; seconds from a change at upstream to its event in Redis")
    logging.disable(logging.WARNING)
    found = asyncio.run(measure())
    logging.disable(logging.NOTSET)
    print("             n    p50    p90    p99    max")
    for kind in ("streamed", "polled", "hinted"):
        marks = "  ".join(f"{percentile(found[kind], share):5.2f}" for share in (0.5, 0.9, 0.99, 1.0))
        print(f"  {kind:<8} {len(found[kind]):>4}  {marks}")


if __name__ == "__main__":
    run()
