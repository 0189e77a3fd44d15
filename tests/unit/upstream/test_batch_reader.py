"""A batch route that is slow, fails, leaves out or words things its own way, in virtual time: nobody notices."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.store.watches import Watches
from bridge.upstream.batch_reader import Verdict, digest, weigh
from bridge.upstream.client import ANSWER_TIMEOUT, Reading
from bridge.upstream.errors import RateLimitedError, UnreachableError
from bridge.upstream.tracked import Tracked
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual


class OddClient(ModelClient):
    """Counts by route. Its batch route can be slow or limited, leave CVMs out, and word and add things its own way."""

    slow = 0.0
    limited = False
    broken = False
    left_out: frozenset[str] = frozenset()
    word: str | None = None
    serial: int | None = None
    """Where it is a number, every answer differs from the one before."""
    counts: Counter[str]

    async def asked(self) -> None:
        """Returns when the next batch's words stand."""
        asked = self.counts["batch"]
        while self.counts["batch"] == asked:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)

    async def read_state(self, ref: str) -> Reading:
        self.counts["state"] += 1
        return await super().read_state(ref)

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        self.counts["batch"] += 1
        if self.limited:
            raise RateLimitedError(status=429)
        answers = await super().batch(ids)
        await asyncio.sleep(min(self.slow, ANSWER_TIMEOUT))
        if self.broken or self.slow > ANSWER_TIMEOUT:
            raise UnreachableError
        if self.serial is not None:
            self.serial += 1
        extra = {"status": self.word} if self.word else {}
        return {
            name: {**told, **extra, "serial": self.serial}
            for name, told in answers.items()
            if name not in self.left_out
        }


@asynccontextmanager
async def polled(cvms: int, poll_interval: float, settle: float) -> AsyncIterator[tuple[Cloud, OddClient, Backend]]:
    """A leader that polls so many CVMs and has settled."""
    cloud = Cloud([f"{number:04}" for number in range(cvms)])
    chosen = Settings(poll_interval=poll_interval, max_streams=0, watch_linger=100_000)
    async with one_leader(chosen, cloud, OddClient, rng=random.Random(1)) as (client, backend, _):
        client.counts = Counter()
        await Watches(backend).renew(cloud.status)
        await asyncio.sleep(settle)
        yield cloud, client, backend


async def stale(backend: Backend) -> list[str]:
    events = [json.loads(event.json) for event in await Log(backend).read("0-0", 100_000)]
    return [event["subject"] for event in events if event["type"] == "watch.stale"]


async def seconds_until_seen(cloud: Cloud, backend: Backend, name: str) -> float:
    """Changes a CVM and waits for its event."""
    status = "stopped" if cloud.status[name] == "running" else "running"
    began = asyncio.get_running_loop().time()
    cloud.change(name, status)
    while (await Snapshots(backend).get([name]))[name].status != status:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.1)
    return asyncio.get_running_loop().time() - began


RUNNING = '{"status":"running","boot_progress":"booting"}'
SAME = {"status": "running", "boot_progress": "booting"}


@pytest.mark.parametrize(
    ("last", "answer", "verdict"),
    [
        (SAME, SAME, Verdict.VOUCHES),
        (SAME, {**SAME, "uptime": "9s"}, Verdict.VOUCHES),
        (SAME, {**SAME, "events": ["x"]}, Verdict.HINTS),
        (SAME, None, Verdict.NOTHING),
        ({**SAME, "status": "stopped"}, {**SAME, "status": "stopped"}, Verdict.NOTHING),
        (None, SAME, Verdict.VOUCHES),
        (None, {**SAME, "boot_progress": "done"}, Verdict.HINTS),
        (None, {**SAME, "status": "stopped"}, Verdict.HINTS),
    ],
)
def test_an_answer_vouches_for_the_state_with_its_own_status_only_also_after_a_former_leader(
    last: dict[str, Any] | None, answer: dict[str, Any] | None, verdict: Verdict
) -> None:
    tracked = Tracked.loaded("a", Snapshot("a", RUNNING, "running", None, None, None), 1.0)
    tracked.batch.answer = digest(last) if last else None
    tracked.seen.made_at = 1.0
    assert weigh(tracked, answer, 2.0) is verdict


def test_an_answer_vouches_for_no_state_that_a_former_leader_saw_without_its_digest() -> None:
    tracked = Tracked.loaded("a", Snapshot("a", RUNNING, "running", None, None, None), 1.0)
    assert weigh(tracked, SAME, 2.0) is Verdict.HINTS


def test_hundreds_of_idle_cvms_are_read_once_at_first_and_cost_two_batches_an_interval_and_a_slow_sweep() -> None:
    async def scenario() -> None:
        async with polled(400, 10, 40) as (_, client, backend):
            assert client.counts["state"] <= 440
            client.counts.clear()
            await asyncio.sleep(100)
            assert client.counts["batch"] <= 21
            assert client.counts["state"] <= 55
            assert await stale(backend) == []

    run_virtual(scenario())


def test_metrics_tell_how_late_polls_are_and_how_long_the_budget_was_spent() -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def late(route: str) -> float:
        every = value("bridge_upstream_late_seconds_count", route=route)
        return every - value("bridge_upstream_late_seconds_bucket", route=route, le="1.0")

    async def scenario() -> None:
        spent, reads = value("bridge_upstream_budget_spent_seconds_total"), late("state")
        async with polled(300, 10, 40) as (_, client, _):
            first = value("bridge_upstream_budget_spent_seconds_total")
            assert 10 <= first - spent <= 20  # 300 states, 20 a second
            client.serial = 1
            await asyncio.sleep(11)
            client.serial = None
            await asyncio.sleep(30)
            assert value("bridge_upstream_budget_spent_seconds_total") > first
            assert late("state") > reads
            quiet = value("bridge_upstream_budget_spent_seconds_total"), late("state"), late("batch")
            await asyncio.sleep(60)
            assert (value("bridge_upstream_budget_spent_seconds_total"), late("state"), late("batch")) == quiet

    run_virtual(scenario())


@pytest.mark.parametrize("slow", [4.0, 8.0, 31.0])
def test_a_slow_batch_route_delays_no_read_and_makes_nobody_stale(slow: float) -> None:
    async def scenario() -> None:
        async with polled(20, 5, 30) as (cloud, client, backend):
            client.slow = slow
            await client.asked()
            assert await seconds_until_seen(cloud, backend, "0000") <= 3.5
            seen = [await seconds_until_seen(cloud, backend, f"{number:04}") for number in range(20)]
            assert max(seen) <= 5.5
            assert await stale(backend) == []

    run_virtual(scenario())


def test_cvms_that_batches_leave_out_are_read_at_the_pace_of_no_batch_route_and_not_faster() -> None:
    async def scenario() -> None:
        async with polled(400, 10, 40) as (cloud, client, backend):
            client.left_out = frozenset(list(cloud.status)[::2])
            await asyncio.sleep(40)
            client.counts.clear()
            await asyncio.sleep(60)
            assert client.counts["state"] <= 60 * 10.6
            assert max([await seconds_until_seen(cloud, backend, f"{number:04}") for number in range(0, 10, 2)]) <= 22
            assert max([await seconds_until_seen(cloud, backend, f"{number:04}") for number in range(1, 10, 2)]) <= 11
            assert await stale(backend) == []

    run_virtual(scenario())


def test_batches_that_always_disagree_or_always_differ_vouch_for_nobody_and_cost_no_more_than_no_batch_route() -> None:
    async def scenario(word: str | None, serial: int | None) -> None:
        async with polled(50, 10, 60) as (cloud, client, backend):
            client.word, client.serial = word, serial
            await asyncio.sleep(60)
            client.counts.clear()
            await asyncio.sleep(60)
            assert client.counts["state"] <= 1.1 * 50 * 6
            assert max([await seconds_until_seen(cloud, backend, f"{number:04}") for number in range(6)]) <= 11
            assert await stale(backend) == []

    run_virtual(scenario("active", None))
    run_virtual(scenario(None, 1))


def test_when_all_digests_differ_at_once_nobody_grows_stale() -> None:
    async def scenario() -> None:
        async with polled(400, 10, 40) as (_, client, backend):
            client.serial = 1
            await asyncio.sleep(11)
            client.serial = None
            await asyncio.sleep(100)
            assert await stale(backend) == []

    run_virtual(scenario())


def test_a_batch_route_alone_that_limits_us_makes_nobody_stale() -> None:
    async def scenario() -> None:
        async with polled(10, 10, 30) as (_, client, backend):
            client.limited = True
            await asyncio.sleep(300)
            assert await stale(backend) == []

    run_virtual(scenario())


def test_cvms_still_left_out_when_a_failing_batch_route_recovers_do_not_grow_stale() -> None:
    async def scenario() -> None:
        async with polled(300, 5, 40) as (cloud, client, backend):
            client.broken = True
            await asyncio.sleep(60)
            client.broken, client.left_out = False, frozenset(list(cloud.status)[:20])
            await asyncio.sleep(60)
            assert await stale(backend) == []
            assert max([await seconds_until_seen(cloud, backend, f"{number:04}") for number in range(20)]) <= 6

    run_virtual(scenario())
