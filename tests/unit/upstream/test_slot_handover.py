"""Slots after a flush, a clock jump, a freeze: each of these cases once allowed a sixth stream, or none at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bridge.upstream.slot_handover import REMEMBERED, ClockSkew
from tests.fakes import redis_time
from tests.unit.upstream.model import NOTICED_AFTER, Cloud
from tests.unit.upstream.replicas import SETTINGS, Replicas
from tests.unit.upstream.test_model import NAMES, Action, live
from tests.virtual import run_virtual

LEASE = SETTINGS.lease_seconds

LIVES: dict[str, list[Action]] = {
    "a flush under two awake replicas": [("flush", "all", ""), ("wait", "40", "")],
    "a flush that forgot a frozen one's slots": [("freeze", "0", ""), ("wait", "12", ""), ("flush", "all", "")],
    "a flush under a frozen leader": [("freeze", "0", ""), ("flush", "all", ""), ("wait", "40", "")],
    "a flush under a leader that is cut off": [("unlink", "0", "hanging"), ("flush", "all", ""), ("wait", "40", "")],
    "slots deleted, then a kill": [("flush", "slots", ""), ("kill", "0", ""), ("wait", "40", "")],
    "slots deleted under a frozen leader": [("freeze", "0", ""), ("flush", "slots", ""), ("wait", "40", "")],
    "takes lost, then a kill": [("ends", "", ""), ("heal", "", ""), ("flush", "takes", ""), ("kill", "0", "")],
    "Redis's clock an hour back, then a kill": [("jump", "2", "-3600"), ("kill", "0", ""), ("wait", "40", "")],
    "Redis's clock an hour on": [("jump", "2", "3600"), ("wait", "40", "")],
    "Redis's clock an hour on, twice": [
        ("jump", "2", "3600"),
        ("ends", "", ""),
        ("jump", "2", "3600"),
        ("heal", "", ""),
    ],
    "Redis's clock on while the leader sleeps, and a new process after it": [
        ("freeze", "0", ""),
        ("jump", "2", "3600"),
        ("wait", "1", ""),
        ("kill", "1", ""),
        ("wait", "40", ""),
    ],
    "streams that end while Redis is slow to answer": [
        ("unlink", "0", "hanging"),
        ("cut", "", ""),
        ("wait", "7", ""),
        ("link", "0", ""),
    ],
    "answers to opens are lost": [("cut", "", ""), ("answers", "lost", ""), ("wait", "100", ""), ("answers", "", "")],
    "flows are forgotten, and CVMs that are polled come into motion": [
        ("lose", "", ""),
        *[("change", name, "stopping") for name in NAMES],
        ("wait", "40", ""),
    ],
    "flows are forgotten, and the leader stops": [("lose", "", ""), ("restart", "0", ""), ("wait", "40", "")],
    "streams are cut, and upstream does not hear it": [("cut", "", "unheard"), ("wait", "40", "")],
    "Redis away longer than the lease": [("unlink", "2", "hanging"), ("wait", "40", ""), ("link", "2", "")],
}


@pytest.mark.parametrize("actions", LIVES.values(), ids=LIVES)
def test_no_sixth_stream_and_five_at_the_end_after(actions: list[Action]) -> None:
    live(*actions)


@asynccontextmanager
async def one_replica() -> AsyncIterator[tuple[Replicas, Cloud]]:
    """The first ever, on an empty Redis."""
    cloud = Cloud(NAMES)
    replicas = Replicas(cloud)
    with redis_time(replicas.redis_clock):
        replicas.start(0)
        try:
            yield replicas, cloud
        finally:
            await replicas.end()


def with_one(scenario: Callable[[Replicas, Cloud], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with one_replica() as (replicas, cloud):
            await scenario(replicas, cloud)
        await asyncio.sleep(1)
        assert cloud.broken == []

    run_virtual(whole())


def test_a_leader_without_a_log_waits_a_lease_before_its_first_stream_also_across_a_restart() -> None:
    async def scenario(replicas: Replicas, cloud: Cloud) -> None:
        await asyncio.sleep(LEASE / 2)
        await replicas.restart(0)
        await asyncio.sleep(LEASE / 2 - 1)
        assert cloud.opened == 0
        await asyncio.sleep(3)
        assert cloud.opened == 5

    with_one(scenario)


def test_the_leader_of_a_flushed_redis_has_its_streams_again_within_seconds() -> None:
    async def scenario(replicas: Replicas, cloud: Cloud) -> None:
        await asyncio.sleep(2 * LEASE)
        await replicas.lose("all")
        await asyncio.sleep(1)
        assert (cloud.opened, len(cloud.open)) == (10, 5)

    with_one(scenario)


def test_a_leader_writes_slots_that_redis_lost_again_for_a_successor_that_never_saw_them() -> None:
    async def scenario(replicas: Replicas, cloud: Cloud) -> None:
        await asyncio.sleep(2 * LEASE)
        await replicas.plain.client.delete(replicas.plain.keys.slots)
        await asyncio.sleep(LEASE / 3 + 0.1)
        replicas.all[0].thawed.clear()
        replicas.start(1)
        await asyncio.sleep(4 * LEASE)
        assert (cloud.opened, len(cloud.open)) == (5, 5)

    with_one(scenario)


@pytest.mark.parametrize("mode", ["refused", "hanging"])
def test_no_stream_outlives_the_lease_while_redis_is_away_and_all_are_back_soon_after(mode: str) -> None:
    async def scenario(replicas: Replicas, cloud: Cloud) -> None:
        await asyncio.sleep(2 * LEASE)
        replicas.link.mode = mode
        await asyncio.sleep(LEASE + NOTICED_AFTER)
        assert cloud.open == []
        await asyncio.sleep(30)
        replicas.link.mode = ""
        await asyncio.sleep(15)
        assert len(cloud.open) == 5

    with_one(scenario)


def test_a_clock_jump_is_measured_and_forgotten_after_the_longest_stream() -> None:
    clock_skew = ClockSkew()
    clock_skew.observe(1000.0, 0.0, 0.1)
    clock_skew.observe(1001.0, 1.0, 1.1)
    assert clock_skew.jumped(145, 2.0) == 0
    clock_skew.observe(1062.0, 2.0, 2.1)
    assert clock_skew.jumped(145, 3.0) == pytest.approx(60, abs=0.2)
    clock_skew.observe(1003.0, 3.0, 3.1)
    clock_skew.observe(1004.0, 4.0, 4.1)
    assert clock_skew.jumped(145, 5.0) == pytest.approx(60, abs=0.2)
    assert clock_skew.jumped(145, 150.0) == 0
    clock_skew.observe(1004.0 + REMEMBERED, 4.0 + REMEMBERED, 4.1 + REMEMBERED)
    assert clock_skew.jumps == []


def test_a_slow_answer_is_not_a_clock_jump() -> None:
    clock_skew = ClockSkew()
    clock_skew.observe(1000.0, 0.0, 0.1)
    clock_skew.observe(1006.0, 1.0, 6.0)
    clock_skew.observe(1007.0, 6.9, 7.0)
    assert clock_skew.jumped(145, 7.0) == 0
