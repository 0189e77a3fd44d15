"""An account that refuses the key, in virtual time: every watch is stale with the reason, and few requests are sent."""

from __future__ import annotations

import asyncio
import json

import pytest

from bridge.config import Settings
from bridge.events import Event
from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.watches import Watches
from bridge.upstream.client import Listed, Reading
from bridge.upstream.errors import RateLimitedError, UnauthorizedError, UnreachableError, UpstreamError
from tests.fakes import fake_backend
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

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


def test_a_refused_key_makes_every_watch_stale_and_costs_few_requests() -> None:
    run_virtual(scenario())


async def scenario() -> None:
    chosen = Settings(cvms=tuple(NAMES), poll_interval=10, stream_timeout=60)
    async with one_leader(chosen, Cloud(NAMES), CountingClient) as (client, backend, _):
        await asyncio.sleep(45)
        client.refusing = True
        await asyncio.sleep(120)
        client.asked = 0
        await asyncio.sleep(300)
        asked, client.refusing = client.asked, False
        stale = await _of(backend, "watch.stale")
        await asyncio.sleep(180)
        fresh = await _of(backend, "watch.fresh")
    assert {event.cvm_id for event in stale} == set(NAMES)
    assert {json.loads(event.json)["data"]["reason"] for event in stale} == {"unauthorized"}
    assert asked <= 300 / 15
    assert {event.cvm_id for event in fresh} == set(NAMES)


def test_a_configured_name_without_a_cvm_costs_a_request_a_minute_and_hides_no_other() -> None:
    run_virtual(missing_name())


async def missing_name() -> None:
    chosen = Settings(cvms=("missing", "a"), poll_interval=3600, max_streams=0)
    async with one_leader(chosen, Cloud(["a"]), CountingClient) as (client, backend, _):
        await asyncio.sleep(30)
        assert [event.cvm_id for event in await Log(backend).read("0-0", 9)] == ["a"]
        client.asked = 0
        await asyncio.sleep(300)
    assert client.asked <= 2 * 5 + 4


def test_a_key_that_was_refused_is_used_again_also_without_watches() -> None:
    run_virtual(demand_alone())


async def demand_alone() -> None:
    chosen = Settings(poll_interval=10, watch_linger=5, max_streams=0)
    async with one_leader(chosen, Cloud(["a", "b"]), CountingClient) as (client, backend, _):
        await Watches(backend).want("a")
        client.refusing = True
        await asyncio.sleep(60)
        client.refusing = False
        await asyncio.sleep(120)
        found = None
        for _ in range(30):
            await ReferenceLookups(backend).forget("b")  # the fake's expiry does not follow the clock
            await ReferenceLookups(backend).ask("b")
            await asyncio.sleep(6)
            answer = await ReferenceLookups(backend).ask("b")
            found = found or (answer and answer.cvm_id)
    assert found == "b"


@pytest.mark.parametrize(("trouble", "most"), [(UnauthorizedError(status=401), 20), (RateLimitedError(status=429), 60)])
def test_the_discovery_of_a_workspace_sends_few_requests_to_an_account_that_refuses_them(
    trouble: UpstreamError, most: int
) -> None:
    run_virtual(found_out(trouble, most))


async def found_out(trouble: UpstreamError, most: int) -> None:
    cloud = Cloud([f"cvm-{number:03}" for number in range(100)])
    chosen = Settings(cvms=("*",), poll_interval=10, max_streams=0)
    async with one_leader(chosen, cloud, RenamingClient) as (client, backend, _):
        client.trouble = trouble
        await asyncio.sleep(60)
        asked, client.trouble = client.asked, None
        await asyncio.sleep(300)
        watched = (await Watches(backend).survey()).watches
    assert asked <= most
    assert len(watched) == 100


def test_a_cvm_whose_reference_cannot_be_resolved_after_a_takeover_stays_watched() -> None:
    run_virtual(unresolved())


async def unresolved() -> None:
    cloud, backend = Cloud(["a", "b"]), fake_backend()
    chosen = Settings(cvms=("*",), poll_interval=10, max_streams=0, watch_linger=30)
    for broken in (frozenset[str](), frozenset({"vm-a"})):
        async with one_leader(chosen, cloud, RenamingClient, backend) as (client, _, _):
            client.broken = broken
            await asyncio.sleep(120)
            assert set((await Watches(backend).survey()).config_pins) == {"a", "b"}
    await backend.close()


class RenamingClient(CountingClient):
    """Lists CVMs by another id than their states carry. Every read answers `trouble`, those of `broken` fail."""

    trouble: UpstreamError | None = None
    broken: frozenset[str] = frozenset()

    def _listed(self, name: str, status: str) -> Listed:
        return Listed(vm_uuid=f"vm-{name}", name=name, status=status)

    async def read_state(self, ref: str) -> Reading:
        if self.trouble is not None:
            await self._reach()
            raise self.trouble
        if ref in self.broken:
            raise UnreachableError(status=500)
        return await super().read_state(ref.removeprefix("vm-"))


async def _of(backend: Backend, kind: str) -> list[Event]:
    return [event for event in await Log(backend).read("0-0", 9999) if event.type == kind]
