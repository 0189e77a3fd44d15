"""Dispatchers that share lanes, are killed, stand still, stop or lose Redis, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.store.connection import Backend, Script, load_script
from bridge.store.dispatchers import read_dispatching
from bridge.store.endpoints import Endpoints
from bridge.webhooks.dispatcher import LEASE
from bridge.webhooks.schedule import InTime
from tests.fakes import fake_client
from tests.lanes import Answer, FakePoster, endpoint
from tests.unit.webhooks.stage import Stage, number, staged, true
from tests.virtual import run_virtual


def test_a_killed_dispatchers_lanes_go_on_elsewhere_within_the_lease_and_with_the_same_id() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            first, second = FakePoster(), FakePoster()
            first.stalled = lambda got: True
            stage.start(first)
            await stage.writer.append()
            await stage.writer.append()
            await stage.until(lambda: true(first.got))
            await stage.kill(0)
            began = stage.clock.monotonic()
            stage.start(second)
            await stage.all_done()
            assert stage.clock.monotonic() - began <= LEASE + 1.5
            assert [number(got) for got in second.got] == [1, 2]
            assert first.got[0].headers["webhook-id"] == second.got[0].headers["webhook-id"]

    run_virtual(scenario())


async def in_flight(stage: Stage) -> FakePoster:
    """An endpoint's first attempt has begun; it ends when the poster's gate is set."""
    await Endpoints(stage.backend).create(endpoint())
    poster = FakePoster()
    poster.stalled = lambda got: True
    stage.start(poster)
    await stage.writer.append()
    await stage.until(lambda: true(poster.got))
    return poster


def test_a_slow_attempt_keeps_its_lane_for_longer_than_a_lease() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            first, second = FakePoster(), FakePoster()
            first.stalled = second.stalled = lambda got: True
            stage.start(first)
            stage.start(second)
            await stage.writer.append()
            await asyncio.sleep(4 * LEASE)
            assert len(first.got) + len(second.got) == 1
            first.gate.set()
            second.gate.set()
            await stage.all_done()

    run_virtual(scenario())


def test_a_planned_stop_waits_for_what_is_in_flight_and_records_it() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await in_flight(stage)
            stopping = asyncio.create_task(stage.stop(0))
            await stage.writer.append("b")
            await asyncio.sleep(3)
            assert not stopping.done()
            poster.gate.set()
            await stopping
            assert len(poster.got) == 1
            assert [each.status for each in await stage.deliveries()] == ["delivered"]

    run_virtual(scenario())


def test_a_planned_stop_ends_although_redis_is_away_and_results_wait() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await in_flight(stage)
            stage.server.connected = False
            poster.gate.set()
            await asyncio.sleep(3)
            async with asyncio.timeout(10):
                await stage.stop(0)

    run_virtual(scenario())


def test_results_that_waited_for_redis_are_recorded_before_anything_else_is_borrowed() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            poster = await in_flight(stage)
            stage.server.connected = False
            poster.gate.set()
            await asyncio.sleep(3 * LEASE)
            stage.server.connected = True
            await stage.all_done()
            assert len(poster.got) == 1

    run_virtual(scenario())


def test_an_idle_dispatcher_claims_nothing_and_leaves_lanes_to_the_others() -> None:
    async def scenario() -> None:
        idle = True
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            stage.start(FakePoster(), idle=lambda: idle)
            await stage.writer.append("a")
            await asyncio.sleep(60)
            assert not await stage.backend.client.exists(f"{stage.backend.keys.webhooks}:busy:e")
            assert [each.attempts for each in await stage.deliveries()] == [()]
            idle = False
            await stage.all_done()

    run_virtual(scenario())


def test_a_dispatcher_is_seen_while_it_is_at_work_and_missed_once_it_is_dead() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster()
            stage.start(poster)
            for _ in range(20):
                await asyncio.sleep(2)
                assert (await read_dispatching(stage.backend)).trouble == ""
            await stage.kill(0)
            await asyncio.sleep(21)
            assert (await read_dispatching(stage.backend)).trouble.startswith("no dispatcher since ")
            stage.start(poster)
            await asyncio.sleep(2)
            assert (await read_dispatching(stage.backend)).trouble == ""

    run_virtual(scenario())


class Halting(Backend):
    """As a process that stands still for `pause` seconds after each claim of any lane, or whose leases `expire`."""

    pause = 0.0
    expire = False

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[object]) -> Any:
        while self.expire and script == load_script("lane_rules", "extend"):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        answer = await super().run(script, keys, args)
        if self.pause and script == load_script("lane_rules", "claim") and answer[2]:
            await asyncio.sleep(self.pause)
        return answer


def test_a_process_that_stood_still_does_not_send_what_it_borrowed_before() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            first, second = FakePoster(), FakePoster()
            halting = Halting(fake_client(stage.server), "bridge")
            halting.pause = 2.1 * LEASE  # not at the moment at which leases are renewed
            stage.start(first, backend=halting)
            await stage.writer.append()
            await asyncio.sleep(0.5)
            stage.start(second)
            await stage.all_done()
            await asyncio.sleep(3 * LEASE)
            assert first.got == []
            assert len(second.got) == 1
            halting.pause = 0.0
            await asyncio.sleep(2 * LEASE)

    run_virtual(scenario())


class Connecting(FakePoster):
    """Opens a connection until `connected`, and then sends."""

    def __init__(self) -> None:
        super().__init__()
        self.connected = asyncio.Event()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, in_time: InTime) -> Answer:
        await self.connected.wait()
        return await super().post(url, headers, body, in_time)


def test_a_process_that_stood_still_while_it_connected_sends_nothing_old_behind_what_another_sent() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            first, second = Connecting(), FakePoster()
            halting = Halting(fake_client(stage.server), "bridge")
            stage.start(first, backend=halting)
            await stage.writer.append()
            await asyncio.sleep(0.5)
            halting.expire = True
            await stage.writer.append()
            stage.start(second)
            await stage.all_done()
            first.connected.set()
            await asyncio.sleep(0.5)
            assert first.got == []
            assert [number(got) for got in second.got] == [1, 2]
            halting.expire = False
            await stage.writer.append()
            await stage.all_done()

    run_virtual(scenario())


def test_a_slow_connection_is_used_while_the_lease_is_renewed() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = Connecting()
            stage.start(poster)
            await stage.writer.append()
            await asyncio.sleep(3 * LEASE)
            poster.connected.set()
            await stage.all_done()
            assert len(poster.got) == 1

    run_virtual(scenario())


def test_a_server_clock_that_stepped_back_holds_nothing_for_long() -> None:
    async def scenario() -> None:
        async with staged() as stage:
            await Endpoints(stage.backend).create(endpoint())
            poster = FakePoster(lambda got: Answer(500, "http_5xx: no") if len(poster.got) == 1 else Answer())
            stage.start(poster, retry=[20] * 9)
            await asyncio.sleep(16)
            await stage.writer.append()
            await stage.until(lambda: true(poster.got))
            await asyncio.sleep(0.1)
            stage.clock.jump(-3600)
            await stage.all_done(seconds=60)

    run_virtual(scenario())
