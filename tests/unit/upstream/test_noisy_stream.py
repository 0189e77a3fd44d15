"""A stream that sends much and says nothing, in virtual time: its CVM is read beside it, once an interval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.config import Settings
from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.upstream.client import Ended, Garbled, Reading, StreamEvent
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual


class NoisyClient(ModelClient):
    """Its streams send one event a hundred times a second."""

    noise: StreamEvent
    reads = 0

    async def read_state(self, ref: str) -> Reading:
        self.reads += 1
        return await super().read_state(ref)

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        async with super().stream(ref, target=target, interval=interval, timeout=timeout):
            yield self._noise(timeout)

    async def _noise(self, timeout: float) -> AsyncIterator[StreamEvent]:
        for _ in range(int(timeout) * 100):
            yield self.noise
            await asyncio.sleep(0.01)
        yield Ended("timeout")


@pytest.mark.parametrize("noise", [Ended("error", "odd"), Garbled("not a state")])
def test_a_flood_of_errors_on_a_stream_causes_one_read_an_interval_which_finds_every_change(noise: StreamEvent) -> None:
    run_virtual(_flood(noise))


async def _flood(noise: StreamEvent) -> None:
    cloud = Cloud(["a"])
    async with one_leader(Settings(cvms=("a",), stream_interval=5), cloud, NoisyClient) as (client, backend, _):
        client.noise = noise
        await asyncio.sleep(30)
        assert cloud.open == ["a"]
        before = client.reads
        await asyncio.sleep(50)
        assert 9 <= client.reads - before <= 12
        cloud.change("a", "stopped")
        await asyncio.sleep(6)
        assert (await Snapshots(backend).all())["a"].status == "stopped"
        assert [event for event in await Log(backend).read("0-0", 100) if "watch.stale" in event.json] == []
