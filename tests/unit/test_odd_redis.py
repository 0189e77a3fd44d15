"""Anything in any private key: nobody ends for it, somebody leads soon, and what happens is told and delivered."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config import Settings
from bridge.sealing import Sealer, new_key
from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.web.app import FrontEnd
from bridge.webhooks.dispatcher import Dispatcher
from tests.fakes import fake_backend, redis_time
from tests.lanes import FakePoster
from tests.odd_data import Spoil, private_keys, spoils
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.replicas import Replicas
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
    "/v1/webhooks/f",
    "/v1/webhooks/f/deliveries?status=pending",
    "/api/v1/cvms/a/state",
    "/readyz",
    "/metrics",
]
KEYS = private_keys()
SHARES = 4
FRONT = Settings(secret_key=new_key())  # type: ignore[arg-type]
URL = "https://1.1.1.1/"
ENDPOINT = {"url": URL, "types": []}


class Stage:
    """One replica of `bridge upstream`, one front end, one dispatcher, and their Redis, in virtual time.

    The damage may be to endpoint `e`'s own keys: `f` must get everything then.
    """

    def __init__(self, damage: list[Spoil]) -> None:
        self.damage = damage
        self.cloud = Cloud(["a", "b"])
        self.replicas = Replicas(self.cloud)
        self.poster = FakePoster()
        self.dispatching: asyncio.Task[None] | None = None

    async def play(self, *, led: bool) -> None:
        """`led`: the damage is done while a replica leads; else before one starts again."""
        async with AsyncExitStack() as stack:
            stack.enter_context(redis_time(self.replicas.redis_clock))
            front = FrontEnd(FRONT, self.replicas.plain, self.replicas.redis_clock, open_access=True)
            fronting = asyncio.create_task(front.run(), name="front end")
            stack.push_async_callback(self.end, fronting)
            http = await stack.enter_async_context(
                httpx.AsyncClient(transport=httpx.ASGITransport(front.app), base_url="http://localhost")
            )
            self.replicas.start(0)
            self.dispatch(stack)
            await asyncio.sleep(16)
            await self.register(http, "e", "f")
            self.cloud.change("a", "starting")
            self.cloud.change("b", "starting")
            await asyncio.sleep(12)
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
            await self.register(http, "f", "g")  # registrations may be what was damaged
            await self.check_that_a_change_is_told()
            self.check_that_it_was_delivered()
            for route in ("/v1/cvms", "/v1/slots", "/v1/cvms/a", "/v1/cvms/b"):
                assert (await http.get(route)).status_code == 200, route
            assert not fronting.done()

    def dispatch(self, stack: AsyncExitStack) -> None:
        stop, backend = asyncio.Event(), fake_backend(self.replicas.redis)
        unseal, rng = Sealer(FRONT.secret_key).open, random.Random(1)
        dispatcher = Dispatcher(
            backend, self.poster, unseal=unseal, retry=[5.0], clock=self.replicas.redis_clock, rng=rng
        )
        self.dispatching = asyncio.create_task(dispatcher.run(stop), name="dispatcher")

        async def end() -> None:
            stop.set()
            assert self.dispatching is not None
            await self.dispatching
            await backend.close()

        stack.push_async_callback(end)

    async def register(self, http: httpx.AsyncClient, *names: str) -> None:
        for name in names:
            answer = await http.put(f"/v1/webhooks/{name}", json={**ENDPOINT, "url": URL + name})
            assert answer.status_code in (200, 201), answer.text

    def check_that_it_was_delivered(self) -> None:
        assert self.dispatching is not None
        assert not self.dispatching.done(), self.dispatching
        for name in ("f", "g"):
            got = [each for each in self.poster.got if each.url == URL + name and b'"to":"stopped"' in each.body]
            assert got, f"{name} got no change"

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


@settings(max_examples=int(os.environ.get("MODEL_EXAMPLES", "6")), derandomize="MODEL_EXAMPLES" not in os.environ)
@given(damage=st.lists(spoils(), min_size=1, max_size=3), led=st.booleans())
def test_whatever_is_in_whichever_keys_all_goes_on(damage: list[Spoil], led: bool) -> None:
    run_virtual(Stage(damage).play(led=led))


# A case takes nearly a second of CPU. Each key lives one of the two; the strategy above mixes them freely.
@pytest.mark.parametrize("led", [True, False])
@pytest.mark.parametrize("share", range(SHARES))
def test_whichever_keys_have_another_type_all_goes_on(share: int, led: bool) -> None:
    kind = "string" if led else "stream"
    spoiled = sorted(KEYS)[share::SHARES][led::2]
    run_virtual(Stage([Spoil(name, kind, "not what belongs here") for name in spoiled]).play(led=led))
