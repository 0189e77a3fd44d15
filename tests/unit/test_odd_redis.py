"""Anything in any private key: nobody ends for it, somebody leads soon, and what happens is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.web.app import FrontEnd
from tests.fakes import redis_time
from tests.odd_data import Spoil, private_keys, spoils
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import SETTINGS, Replicas
from tests.virtual import run_virtual

ROUTES = [
    "/v1/cvms",
    "/v1/cvms/a",
    "/v1/cvms/b",
    "/v1/slots",
    "/v1/cvms/a/events",
    "/v1/events",
    "/v1/events?since=2020-01-01",
    "/v1/webhooks",
    "/v1/webhooks/e",
    "/v1/webhooks/e/deliveries",
    "/api/v1/cvms/a/state",
    "/readyz",
    "/metrics",
]
KEYS = private_keys()


class Stage:
    """One replica of `bridge upstream`, one front end, and their Redis, in virtual time."""

    def __init__(self, damage: list[Spoil]) -> None:
        self.damage = damage
        self.cloud = Cloud(["a", "b"])
        self.replicas = Replicas(self.cloud)

    async def play(self, *, led: bool) -> None:
        """`led`: the damage is done while a replica leads; else before one starts again."""
        async with AsyncExitStack() as stack:
            stack.enter_context(redis_time(self.replicas.redis_clock))
            front = FrontEnd(SETTINGS, self.replicas.plain, self.replicas.redis_clock, open_access=True)
            fronting = asyncio.create_task(front.run(), name="front end")
            stack.push_async_callback(self.end, fronting)
            http = await stack.enter_async_context(
                httpx.AsyncClient(transport=httpx.ASGITransport(front.app), base_url="http://localhost")
            )
            self.replicas.start(0)
            await asyncio.sleep(30)
            if not led:
                await self.replicas.all[0].end()
                await asyncio.sleep(1)  # its streams have certainly ended
            for spoil in self.damage:
                await spoil.apply(self.replicas.plain.client, KEYS[spoil.name])
            if not led:
                self.replicas.start(0)
            for pause in (0.0, 1.0, 5.0, 15.0, 60.0):
                await asyncio.sleep(pause)
                await self.ask(http)
            await self.check_that_a_change_is_told()
            for route in ("/v1/cvms", "/v1/slots", "/v1/cvms/a", "/v1/cvms/b"):
                assert (await http.get(route)).status_code == 200, route
            assert not fronting.done()

    async def end(self, fronting: asyncio.Task[None]) -> None:
        fronting.cancel()
        await asyncio.wait([fronting])
        await self.replicas.end()

    async def ask(self, http: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(http.get(route, headers={"Accept": "application/json"}) for route in ROUTES))
        for route, answer in zip(ROUTES, answers, strict=True):
            assert answer.status_code != 500, f"{route}: {answer.text}"

    async def check_that_a_change_is_told(self) -> None:
        replica = self.replicas.all[0]
        assert replica.task is not None
        assert not replica.task.done(), replica.task
        assert replica.upstream.trouble == ""
        assert replica.leads
        self.cloud.change("a", "stopped")
        await asyncio.sleep(40)
        assert replica.leads
        backend = self.replicas.plain
        assert (await Snapshots(backend).get(["a"]))["a"].status == "stopped"
        position, events = await Log(backend).position(), await Log(backend).latest(10)
        assert position is not None
        assert (position.sequence, position.id) == (events[-1].sequence, events[-1].id)
        assert any('"to":"stopped"' in event.json for event in events if event.cvm_id == "a")
        assert not self.cloud.broken


@settings(max_examples=25, derandomize=True)
@given(damage=st.lists(spoils(), min_size=1, max_size=3), led=st.booleans())
def test_whatever_is_in_whichever_keys_all_goes_on(damage: list[Spoil], led: bool) -> None:
    run_virtual(Stage(damage).play(led=led))


@pytest.mark.parametrize("led", [True, False])
@pytest.mark.parametrize("kind", ["string", "stream"])
@pytest.mark.parametrize("name", sorted(KEYS))
def test_whichever_key_has_another_type_all_goes_on(name: str, kind: str, led: bool) -> None:
    run_virtual(Stage([Spoil(name, kind, "not what belongs here")]).play(led=led))
