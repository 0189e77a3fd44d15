"""What front ends ask of the leader, in virtual time: however much it is, the leader reads and asks little at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.store.reference_lookups import MOST_HINTS, ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Survey, Watches
from bridge.upstream.client import Reading
from tests.fakes import fake_backend, redis_time
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import VirtualClock, run_virtual


class SlowClient(ModelClient):
    """Counts the reads, and how many of them were under way at once."""

    reads = running = most = 0
    slow = 0.5

    async def read_state(self, ref: str) -> Reading:
        self.reads += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.slow)
            return await super().read_state(ref)
        finally:
            self.running -= 1


@asynccontextmanager
async def leading(*cvms: str) -> AsyncIterator[tuple[Cloud, SlowClient, Backend]]:
    """A leader that polls these and has settled."""
    cloud, settings = Cloud(cvms), Settings(cvms=cvms, poll_interval=600, max_streams=0)
    async with one_leader(settings, cloud, SlowClient) as (client, backend, _):
        await asyncio.sleep(20)
        yield cloud, client, backend


async def watched(backend: Backend, cvm_id: str) -> bool:
    return cvm_id in await Snapshots(backend).get([cvm_id])


def test_three_thousand_hints_are_followed_eight_at_a_time_and_those_of_watched_cvms_before_them() -> None:
    async def scenario() -> None:
        async with leading("a") as (cloud, client, backend):
            lookups = ReferenceLookups(backend)
            for number in range(3000):
                await lookups.hint(f"unknown-{number}")
            assert await backend.client.scard(backend.keys.hints) == MOST_HINTS
            await asyncio.sleep(3)
            cloud.change("a", "stopped")
            await backend.client.srem(backend.keys.hints, "unknown-2999", "unknown-0")
            await lookups.hint("a")
            await asyncio.sleep(2)
            assert (await Snapshots(backend).get(["a"]))["a"].status == "stopped"
            await asyncio.sleep(120)
            assert client.most <= 9
            assert await backend.client.scard(backend.keys.hints) == 0

    run_virtual(scenario())


def test_a_storm_of_wakes_causes_five_surveys_a_second_and_reads_no_members(monkeypatch: pytest.MonkeyPatch) -> None:
    surveys: list[bool] = []
    survey = Watches.survey

    async def counted(watches: Watches, known: Survey | None = None) -> Survey:
        found = await survey(watches, known)
        surveys.append(known is not None and known.revision == found.revision)
        return found

    async def scenario() -> None:
        async with leading("a") as (_, _, backend):
            monkeypatch.setattr(Watches, "survey", counted)
            for _ in range(1000):
                await backend.client.publish(backend.keys.wake_channel, "lookup")
                await asyncio.sleep(0.01)
            assert 40 <= len(surveys) <= 51
            assert surveys.count(False) <= 1

    run_virtual(scenario())


def test_a_change_that_told_no_revision_is_seen_at_once_with_a_wake_and_soon_without_one() -> None:
    async def scenario() -> None:
        async with leading("a") as (cloud, _, backend):
            cloud.status["b"] = "running"
            cloud.status["c"] = "running"
            await asyncio.sleep(3)  # between two of the surveys that read everything
            now = await backend.now_ms()
            await backend.client.zadd(backend.keys.watches, {"b": now})
            await backend.client.publish(backend.keys.wake_channel, "watch")
            await asyncio.sleep(2)
            assert await watched(backend, "b")
            await backend.client.zadd(backend.keys.watches, {"c": now})
            await asyncio.sleep(12)
            assert await watched(backend, "c")

    run_virtual(scenario())


def test_a_watch_that_nobody_renews_ends_once_and_one_that_is_renewed_meanwhile_does_not() -> None:
    async def scenario() -> None:
        async with leading("a") as (cloud, _, backend):
            watches = Watches(backend)
            for name in ("b", "c"):
                cloud.status[name] = "running"
                await watches.want(name)
            await asyncio.sleep(290)
            await watches.want("c")
            await asyncio.sleep(20)
            dropped = [event.json for event in await Log(backend).read("0-0", 100) if "watch.dropped" in event.json]
            assert len(dropped) == 1
            assert await watched(backend, "c")
            assert not await watched(backend, "b")

    run_virtual(scenario())


def test_a_watch_outlives_its_last_demand_by_the_linger_time_and_its_time_is_not_written_meanwhile() -> None:
    async def scenario() -> None:
        async with leading("a") as (cloud, _, backend):
            watches, client, key = Watches(backend), backend.client, backend.keys.watches
            cloud.status["b"] = "running"
            await watches.want("b")
            times = await client.zrange(key, 0, -1, withscores=True)
            for _ in range(32):  # longer than the linger time
                await watches.announce("front", {"b": 1}, 15)
                await asyncio.sleep(10)
            assert await client.zrange(key, 0, -1, withscores=True) == times
            await watches.retire("front")
            await asyncio.sleep(299)
            assert await watched(backend, "b")
            await asyncio.sleep(4)
            assert not await watched(backend, "b")
            assert await watched(backend, "a")

    run_virtual(scenario())


def test_a_pin_that_is_removed_takes_the_linger_time_with_it_but_not_the_demand() -> None:
    async def scenario() -> None:
        async with leading("a") as (cloud, _, backend):
            watches = Watches(backend)
            for name in ("b", "c"):
                cloud.status[name] = "running"
                await watches.pin(name)
            await asyncio.sleep(320)
            await watches.announce("front", {"c": 1}, 20)
            await watches.unpin("b")
            await watches.unpin("c")
            await asyncio.sleep(3)
            assert not await watched(backend, "b")
            assert await watched(backend, "c")
            await asyncio.sleep(300)  # demand ended by itself, and the linger time after it runs
            assert await watched(backend, "c")
            await asyncio.sleep(30)
            assert not await watched(backend, "c")

    run_virtual(scenario())


def test_a_watch_whose_demand_ended_while_nobody_led_lingers_from_the_takeover_on() -> None:
    async def scenario() -> None:
        backend, cloud, settings = fake_backend(), Cloud(["a"]), Settings(poll_interval=600, max_streams=0)
        watches = Watches(backend)
        with redis_time(VirtualClock()):
            async with one_leader(settings, cloud, ModelClient, backend):
                await watches.want("a")
                for _ in range(32):  # longer than the linger time
                    await watches.announce("front", {"a": 1}, 15)
                    await asyncio.sleep(10)
            await watches.retire("front")
            await asyncio.sleep(5)
            async with one_leader(settings, cloud, ModelClient, backend):
                await asyncio.sleep(299)
                assert await watched(backend, "a")
                await asyncio.sleep(5)
                assert not await watched(backend, "a")
        await backend.close()

    run_virtual(scenario())
