"""An account that refuses the key, in virtual time: everything is stale and says why, and upstream is left in peace."""

from __future__ import annotations

import asyncio
import json

from bridge.config import Settings
from bridge.events import Event
from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.upstream.errors import UnauthorizedError
from bridge.upstream.leader import Upstream
from tests.fakes import fake_backend, redis_time
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import VirtualClock, run_virtual

NAMES = [f"cvm-{number:02}" for number in range(40)]


class CountingClient(ModelClient):
    """Counts every request; refuses all while `refusing`."""

    asked = 0
    refusing = False

    async def _reach(self) -> None:
        self.asked += 1
        await super()._reach()
        if self.refusing:
            raise UnauthorizedError(status=401)


def test_a_refused_key_makes_everything_stale_and_leaves_upstream_in_peace() -> None:
    run_virtual(scenario())


async def scenario() -> None:
    clock, thawed, stop = VirtualClock(), asyncio.Event(), asyncio.Event()
    thawed.set()
    client, backend = CountingClient(Cloud(NAMES), clock, thawed), fake_backend()
    chosen = Settings(cvms=tuple(NAMES), poll_interval=10, stream_timeout=60)
    with redis_time(clock):
        running = asyncio.create_task(Upstream(chosen, backend, client, clock, alone=True).run(stop))
        await asyncio.sleep(60)
        client.refusing = True
        await asyncio.sleep(180)
        client.asked = 0
        await asyncio.sleep(600)
        asked, client.refusing = client.asked, False
        stale = await _of(backend, "watch.stale")
        await asyncio.sleep(180)
        fresh = await _of(backend, "watch.fresh")
        stop.set()
        await running
        await backend.close()
    assert {event.cvm_id for event in stale} == set(NAMES)
    assert {json.loads(event.json)["data"]["reason"] for event in stale} == {"unauthorized"}
    assert asked <= 600 / 15
    assert {event.cvm_id for event in fresh} == set(NAMES)


def test_a_name_that_nothing_has_costs_a_question_a_minute_and_hides_no_other() -> None:
    run_virtual(missing_name())


async def missing_name() -> None:
    clock, thawed, stop = VirtualClock(), asyncio.Event(), asyncio.Event()
    thawed.set()
    client, backend = CountingClient(Cloud(["a"]), clock, thawed), fake_backend()
    chosen = Settings(cvms=("nobody", "a"), poll_interval=3600, max_streams=0)
    with redis_time(clock):
        running = asyncio.create_task(Upstream(chosen, backend, client, clock, alone=True).run(stop))
        await asyncio.sleep(30)
        assert [event.cvm_id for event in await Log(backend).read("0-0", 9)] == ["a"]
        client.asked = 0
        await asyncio.sleep(600)
        stop.set()
        await running
        await backend.close()
    assert client.asked <= 2 * 10 + 4


async def _of(backend: Backend, kind: str) -> list[Event]:
    return [event for event in await Log(backend).read("0-0", 9999) if event.type == kind]
