"""An update of a running CVM: not ready, then ready, once each on every way out, whatever happens to the leader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import redis.asyncio as redis
from pydantic import SecretStr

from bridge.addresses import with_loopback
from bridge.clock import SystemClock
from bridge.config import Settings
from bridge.config_values import Allowlist
from bridge.events import READINESS, Event
from bridge.process.dispatcher import open_dispatcher
from bridge.sealing import new_key
from bridge.simulator.server import serve
from bridge.simulator.world import World
from bridge.store.connection import connect
from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from tests.bridges import Whole, sse, whole
from tests.faults.test_takeover import replica, until
from tests.receivers import receiving

UPDATE = {"type": "update", "started_at": "2026-11-24T16:00:00Z", "correlation_id": "c1"}
ONCE = [(False, "operation"), (True, "running")]


def readiness(events: list[dict[str, Any]]) -> list[tuple[bool, str]]:
    return [(each["data"]["ready"], each["data"]["reason"]) for each in events if each["type"] == READINESS]


def envelopes(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(event.json) for event in events]


async def ready_is(bridge: Whole, cvm_id: str, ready: bool) -> None:
    async def holds() -> bool:
        return (await bridge.cvm(cvm_id)).get("ready") is ready

    await bridge.until(holds, f"ready is {ready}")


@asynccontextmanager
async def published(redis_url: str) -> AsyncIterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    async with client.pubsub() as channel:
        await channel.subscribe("{bridge}:events")

        async def collect() -> None:
            async for message in channel.listen():
                found.extend([json.loads(message["data"])] if message["type"] == "message" else [])

        task = asyncio.create_task(collect())
        yield found
        task.cancel()
        await asyncio.wait([task])
    await client.aclose()


async def test_an_update_is_told_once_over_sse_redis_and_the_list(redis_url: str) -> None:
    async with whole(redis_url, cvms=1, operations=True) as bridge, published(redis_url) as channel:
        (cvm,) = bridge.ids
        await ready_is(bridge, cvm, True)
        seen = asyncio.create_task(sse(bridge.http, f"{bridge.url}/v1/events?type={READINESS}", 3))
        await asyncio.sleep(0.3)
        begun = len(channel)
        await bridge.control("PUT", f"/cvms/{cvm}/operation", json=UPDATE)
        await ready_is(bridge, cvm, False)
        shown = await bridge.cvm(cvm)
        assert (shown["status"], shown["operation"]) == ("running", UPDATE)
        assert shown["app_id"] == bridge.sim.simulator.world.cvms[0].app_id
        assert (await bridge.http.get(f"{bridge.url}/v1/cvms?ready=true")).json()["items"] == []
        await bridge.control("DELETE", f"/cvms/{cvm}/operation")
        await ready_is(bridge, cvm, True)
        (snapshot, _, first), *served = await seen
        assert (snapshot, first["data"]["ready"]) == ("snapshot", True)
        assert [name for name, _, _ in served] == ["readiness"] * 2
        assert readiness([event for _, _, event in served]) == readiness(channel[begun:]) == ONCE
        assert (await bridge.http.get(f"{bridge.url}/v1/cvms?ready=true")).json()["items"][0]["cvm_id"] == cvm


async def test_an_update_is_told_once_to_a_webhook_that_wants_readiness(redis_url: str) -> None:
    given: dict[str, Any] = {"secret_key": (SecretStr(new_key()),), "webhook_allow": with_loopback(Allowlist())}
    async with (
        whole(redis_url, cvms=1, operations=True, settings=given) as bridge,
        receiving() as receiver,
        open_dispatcher(Settings(**given), bridge.backend, SystemClock()) as (dispatcher, _),
        asyncio.TaskGroup() as group,
    ):
        (cvm,), stop = bridge.ids, asyncio.Event()
        await ready_is(bridge, cvm, True)
        await bridge.until_streamed(1)
        wanted: dict[str, dict[str, object]] = {
            "all": {"types": [READINESS]},
            "ready": {"types": [READINESS], "ready": True, "format": "cloudevents"},
            "phala": {"types": [READINESS], "ready": False, "format": "phala"},
            "default": {},
        }
        for name, fields in wanted.items():
            answer = await bridge.http.post(
                f"{bridge.url}/v1/webhooks", json={"url": f"{receiver.url}/{name}", **fields}
            )
            assert answer.status_code == 201, answer.text
        group.create_task(dispatcher.run(stop))
        await bridge.control("PUT", f"/cvms/{cvm}/operation", json=UPDATE)
        await ready_is(bridge, cvm, False)
        await bridge.control("DELETE", f"/cvms/{cvm}/operation")
        await ready_is(bridge, cvm, True)
        await receiver.until(lambda: len(receiver.accepted) >= 4, "all deliveries")
        stop.set()
    got = {name: [json.loads(hit.body) for hit in receiver.accepted if hit.path == f"/{name}"] for name in wanted}
    assert readiness(got["all"]) == ONCE
    assert readiness(got["ready"]) == ONCE[1:]
    assert [(each["event"], each["data"]["ready"]) for each in got["phala"]] == [(READINESS, False)]
    assert got["default"] == []


async def test_a_status_and_its_readiness_are_neighbours_in_the_log(redis_url: str) -> None:
    """Polled, with an operation and a status that change between two looks."""
    settings = {"max_streams": 0}
    async with whole(redis_url, cvms=1, operations=True, settings=settings) as bridge:
        (cvm,) = bridge.ids
        await ready_is(bridge, cvm, True)
        last, world = (await bridge.log())[-1].sequence, bridge.sim.simulator.world
        for operation, status in ((UPDATE, "restarting"), (None, "running")):
            world.cvms[0].operation = operation
            world.update(world.cvms[0], {"status": status})
            await ready_is(bridge, cvm, operation is None)
        events = [event for event in await bridge.log() if event.sequence > last]
        assert [event.type for event in events] == ["cvm.transition", READINESS] * 2
        assert readiness(envelopes(events)) == ONCE
        assert [event.sequence for event in events] == list(range(last + 1, last + 5))
        snapshot = (await Snapshots(bridge.backend).get([cvm]))[cvm]
        assert (snapshot.event_id, snapshot.ready) == (events[-1].id, True)


async def test_a_leader_that_is_killed_in_the_middle_of_an_operation_repeats_and_misses_nothing(redis_url: str) -> None:
    """Nor the replica that the app got at the same moment."""
    world = World(seed=7, cvms=2, frozen=True)
    app = f"app_{world.cvms[0].app_id}"
    async with serve(world=world, time_scale=0.1, instant=True) as sim, httpx.AsyncClient() as http:
        backend = connect(redis_url, "bridge")
        cvm = world.cvms[0].vm_uuid
        replicas = [replica(sim, redis_url, app)]

        async def is_ready(ready: bool) -> None:
            async def holds() -> bool:
                found = (await Snapshots(backend).all()).get(cvm)
                return found is not None and found.ready is ready

            await until(holds, f"ready is {ready}")

        try:
            await is_ready(True)
            before = (await Log(backend).position()) or None
            assert before is not None
            replicas.append(replica(sim, redis_url, app))
            await http.put(f"{sim.control}/cvms/{cvm}/operation", json=UPDATE)
            await is_ready(False)
            await http.put(f"{sim.control}/apps/{cvm}/replicas", json={"replicas": 2})
            replicas[0].kill()
            holder = await backend.client.hget(backend.keys.leader, "holder")

            async def taken_over() -> bool:
                return bool(await backend.client.hget(backend.keys.leader, "holder") != holder)

            await until(taken_over, "the other leads")
            await asyncio.sleep(1)  # it asks about operations too
            await http.delete(f"{sim.control}/cvms/{cvm}/operation")
            await is_ready(True)
            added = world.cvms[2].vm_uuid

            async def entered() -> bool:
                return added in await Snapshots(backend).all()

            await until(entered, "the new replica")
            events = await Log(backend).read(before.id, 99)
            assert readiness(envelopes([each for each in events if each.cvm_id == cvm])) == ONCE
            told = [each.type for each in events if each.cvm_id == added]
            assert (told[0], told.count("cvm.state")) == ("cvm.state", 1)
            assert {each.cvm_id for each in events} == {cvm, added}
        finally:
            for each in replicas:
                each.kill()
                each.communicate()
            await backend.close()
