"""An upstream that answers nothing, in virtual time: few requests, said once a minute, and over at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import REGISTRY

from bridge.config import Settings
from bridge.process.probe import create_app
from bridge.store.connection import Backend
from bridge.store.leader_status import read_leader_status
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.upstream.breaker import PROBE_EVERY
from bridge.upstream.client import StreamEvent
from bridge.upstream.errors import RateLimitedError, ServerError
from bridge.upstream.leader import Upstream
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

SETTINGS = Settings(cvms=("*",), poll_interval=10, stream_timeout=60)


class CountingClient(ModelClient):
    """Counts every request, streams included. `retry_after`: what a refusal asks for."""

    asked = 0
    opens = 0
    retry_after: float | None = None

    async def _reach(self) -> None:
        self.asked += 1
        if self.retry_after is not None:
            raise RateLimitedError(status=429, retry_after=self.retry_after)
        await super()._reach()

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        self.opens += 1
        async with super().stream(ref, target=target, interval=interval, timeout=timeout) as events:
            yield events


@asynccontextmanager
async def leading(
    cloud: Cloud, settings: Settings = SETTINGS
) -> AsyncIterator[tuple[CountingClient, Backend, Upstream]]:
    async with one_leader(settings, cloud, CountingClient) as led:
        yield led


def test_an_outage_costs_fewer_requests_than_the_calm_before_and_is_over_at_once() -> None:
    run_virtual(outage())


async def outage() -> None:
    cloud = Cloud([f"cvm-{number:03}" for number in range(120)])
    async with leading(cloud) as (client, backend, _):
        await asyncio.sleep(90)
        client.asked, before = 0, client.opens
        await asyncio.sleep(150)
        calm, client.asked = client.asked, 0
        assert client.opens - before <= 5 * 3  # streams end after a minute
        cloud.failing = ServerError
        await asyncio.sleep(30)  # what was on its way
        client.asked, client.opens = 0, 0
        await asyncio.sleep(150)
        assert client.asked < calm
        assert client.opens == 0
        for name in ("cvm-000", "cvm-050", "cvm-119"):
            cloud.change(name, "stopped")
        cloud.failing = None
        await asyncio.sleep(2 * PROBE_EVERY + SETTINGS.poll_interval)
        snapshots = await Snapshots(backend).all()
        assert {name: each.status for name, each in snapshots.items()} == cloud.status
        assert len(cloud.streams) == 5


def test_an_outage_of_a_few_seconds_makes_no_watch_stale() -> None:
    async def scenario() -> None:
        cloud = Cloud([f"cvm-{number}" for number in range(8)])
        async with leading(cloud) as (_, backend, _upstream):
            await asyncio.sleep(30)
            cloud.failing = ServerError
            await asyncio.sleep(4)
            cloud.failing = None
            await asyncio.sleep(30)
            assert {event.type for event in await Log(backend).read("0-0", 999)} == {"cvm.state"}

    run_virtual(scenario())


def test_streams_that_are_cut_while_reads_are_answered_are_no_outage() -> None:
    async def scenario() -> None:
        cloud = Cloud([f"cvm-{number}" for number in range(8)])
        async with leading(cloud) as (_, backend, upstream):
            await asyncio.sleep(30)
            streamed = cloud.open[0]
            cloud.cut += 1
            await asyncio.sleep(1.2)
            assert cloud.open == []
            assert upstream.degraded == ""
            cloud.change(streamed, "stopped")
            await ReferenceLookups(backend).hint(streamed)
            await asyncio.sleep(1)
            assert (await Snapshots(backend).get([streamed]))[streamed].status == "stopped"
            assert {event.type for event in await Log(backend).read("0-0", 99)} == {"cvm.state", "cvm.transition"}

    run_virtual(scenario())


def test_one_cvm_that_fails_has_the_others_read_as_before() -> None:
    async def scenario() -> None:
        cloud = Cloud(["a", "b", "c"])
        settings = SETTINGS.model_copy(update={"max_streams": 0})
        async with leading(cloud, settings) as (client, backend, upstream):
            await asyncio.sleep(30)
            read = client.read_state

            async def failing(ref: str) -> object:
                if ref == "a":
                    raise ServerError(status=500)
                return await read(ref)

            client.read_state = failing  # type: ignore[method-assign, assignment]
            for _ in range(20):
                await ReferenceLookups(backend).hint("a")
                await asyncio.sleep(5)
                assert upstream.context is not None
                assert not upstream.context.budget.breaker.is_open
            cloud.change("b", "stopped")
            await asyncio.sleep(12)
            assert (await Snapshots(backend).get(["b"]))["b"].status == "stopped"

    run_virtual(scenario())


@pytest.mark.parametrize("cvms", [("*",), ("one", "two", "three")])
def test_an_upstream_that_is_down_at_the_first_start_is_told_everywhere(
    cvms: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run_virtual(down_at_start(cvms))
    said = [record for record in caplog.records if record.message == "upstream is unreachable"]
    assert 3 <= len(said) <= 5
    assert "upstream answers again" in caplog.messages


async def down_at_start(cvms: tuple[str, ...]) -> None:
    cloud = Cloud(["one", "two", "three"])
    cloud.failing = ServerError
    async with leading(cloud, SETTINGS.model_copy(update={"cvms": cvms})) as (_, backend, upstream):
        app = create_app(backend, lambda: "leader", lambda: upstream.trouble, lambda: upstream.degraded)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://probe") as http:

            async def ready() -> dict[str, str]:
                answer = await http.get("/readyz")
                assert answer.status_code == 200
                found: dict[str, str] = answer.json()
                return found

            await asyncio.sleep(240)
            assert await ready() == {"status": "degraded", "role": "leader", "reason": "upstream unreachable"}
            assert REGISTRY.get_sample_value("bridge_upstream_reachable") == 0
            assert (await read_leader_status(backend))["unreachable"] is True
            cloud.failing = None
            await asyncio.sleep(75)
            assert await ready() == {"status": "ready", "role": "leader"}
            assert REGISTRY.get_sample_value("bridge_upstream_reachable") == 1
            assert len(await Snapshots(backend).all()) == 3


def test_look_ups_of_unknown_references_keep_to_the_pause_that_upstream_asked_for() -> None:
    async def scenario() -> None:
        async with leading(Cloud(["a"]), Settings(max_streams=0)) as (client, backend, _):
            client.retry_after = 30.0
            for number in range(300):
                await ReferenceLookups(backend).ask(f"unknown-{number}")
                await asyncio.sleep(0.1)
            assert client.asked <= 30 / 30 + 8

    run_virtual(scenario())
