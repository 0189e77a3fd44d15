"""While nothing changes, the snapshots in Redis stand still, and yet the age of each state is told exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from bridge.clock import unix
from bridge.store.log import Log
from bridge.upstream.stored_snapshots import ONE_EVERY
from tests.fakes import redis_time
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import SETTINGS, Replica, Replicas
from tests.virtual import run_virtual

NAMES = [f"cvm-{number:03}" for number in range(150)]
FLUSHED = 1.2
"""Seconds from a confirmation to its record."""


async def ages(replicas: Replicas) -> dict[str, float]:
    """Seconds since each was confirmed, as a front end tells them."""
    now, (_, snapshots) = replicas.redis_clock.time(), await Log(replicas.plain).snapshot()
    return {cvm_id: now - unix(each.observed_at) for cvm_id, each in snapshots.items()}


def remembered(replica: Replica) -> dict[str, float]:
    """The same as the leader itself has it."""
    assert replica.upstream.context is not None
    now = replica.clock.monotonic()
    return {cvm_id: now - each.seen.confirmed_at for cvm_id, each in replica.upstream.context.watches.items()}


async def assert_exact(replicas: Replicas, leader: Replica, names: Iterable[str] = NAMES) -> None:
    before, told, after = remembered(leader), await ages(replicas), remembered(leader)
    for name in names:
        recorded_late = told[name] - after[name]
        assert -0.01 <= recorded_late <= SETTINGS.poll_interval + FLUSHED, name
        if before[name] > FLUSHED:
            assert abs(recorded_late) < 0.01, (name, told[name], before[name])


def test_ages_are_exact_while_the_snapshots_stand_still_and_after_the_leader_is_gone() -> None:
    async def scenario() -> None:
        replicas = Replicas(Cloud(NAMES))
        with redis_time(replicas.redis_clock):
            first = replicas.start(0)
            await asyncio.sleep(90)
            stored = await replicas.plain.client.hgetall(replicas.plain.keys.state)
            for _ in range(40):
                await asyncio.sleep(1.3)
                await assert_exact(replicas, first)
            now_stored = await replicas.plain.client.hgetall(replicas.plain.keys.state)
            assert sum(text != stored[name] for name, text in now_stored.items()) <= 52 / ONE_EVERY + 1
            assert max((await ages(replicas)).values()) < SETTINGS.poll_interval + FLUSHED + 0.5
            # Nobody leads: the ages only grow.
            await first.kill()
            before = await ages(replicas)
            await asyncio.sleep(30)
            assert all(abs(age - before[name] - 30) < 0.01 for name, age in (await ages(replicas)).items())
            # The next leader first has what is told, and then tells what it sees.
            second = replicas.start(1)
            await asyncio.sleep(0.3)
            assert second.upstream.leading
            before = await ages(replicas)
            await asyncio.sleep(2)
            assert all(age < before[name] + 2.01 for name, age in (await ages(replicas)).items())
            await asyncio.sleep(60)
            await assert_exact(replicas, second)
            assert max((await ages(replicas)).values()) < SETTINGS.poll_interval + FLUSHED + 0.5
            replicas.all = [second]
            await replicas.end()

    run_virtual(scenario())


def test_a_new_leader_keeps_the_times_of_those_that_it_cannot_read() -> None:
    async def scenario() -> None:
        cloud = Cloud(NAMES[:20])
        replicas = Replicas(cloud)
        with redis_time(replicas.redis_clock):
            await asyncio.sleep(0)
            first = replicas.start(0)
            await asyncio.sleep(90)
            await first.kill()
            await asyncio.sleep(12)
            cloud.silent.update(NAMES[17:20])
            before = await ages(replicas)
            second = replicas.start(1)
            await asyncio.sleep(8)
            after = await ages(replicas)
            assert all(after[name] < 8.01 < before[name] for name in NAMES[:17])
            assert all(abs(after[name] - before[name] - 8) < 0.01 for name in NAMES[17:20])
            replicas.all = [second]
            await replicas.end()

    run_virtual(scenario())


def test_a_stale_cvm_keeps_its_age_while_the_others_are_confirmed() -> None:
    async def scenario() -> None:
        cloud = Cloud(NAMES[:20])
        replicas = Replicas(cloud)
        with redis_time(replicas.redis_clock):
            leader = replicas.start(0)
            await asyncio.sleep(60)
            assert leader.upstream.context is not None
            streamed = {slot.cvm_id for slot in leader.upstream.context.slots}
            lost = next(name for name in NAMES[:20] if name not in streamed)
            before = (await ages(replicas))[lost]
            cloud.silent.add(lost)
            await asyncio.sleep(60)
            told = await ages(replicas)
            _, snapshots = await Log(replicas.plain).snapshot()
            assert not snapshots[lost].fresh
            assert told[lost] > 60 + before - SETTINGS.poll_interval - FLUSHED
            assert max(age for name, age in told.items() if name != lost) < SETTINGS.poll_interval + FLUSHED + 0.5
            await replicas.end()

    run_virtual(scenario())
