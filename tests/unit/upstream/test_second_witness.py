"""Deleted, or only not found: a leader in virtual time, and 404s of upstream and of proxies before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.upstream.absence import Listing
from bridge.upstream.errors import ServerError
from bridge.upstream.leader import Upstream
from bridge.upstream.second_witness import NOT_FOUND, SecondWitness
from bridge.upstream.tracked import Tracked
from bridge.upstream.workspace import Workspace
from tests.fakes import fake_backend
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.unit.upstream.test_answers import leading
from tests.virtual import run_virtual

SETTINGS = Settings(poll_interval=10, stream_timeout=60)
POLLING = Settings(poll_interval=10, max_streams=0)

TWO_INTERVALS = 20.0
ANSWERS = 2.0
"""Seconds for the requests in between."""


@dataclass
class Led:
    """A bridge that leads, and its upstream."""

    cloud: Cloud
    upstream: Upstream
    backend: Backend

    async def transitions(self) -> list[tuple[str, str]]:
        """The CVM and its new status, after the first ones."""
        events = [json.loads(event.json) for event in await Log(self.backend).read("0-0", 1000)]
        return [(each["subject"], each["data"]["to"]) for each in events if each["type"] == "cvm.transition"]

    async def stale(self) -> dict[str, str | None]:
        found = await Snapshots(self.backend).all()
        return {cvm_id: each.stale_reason for cvm_id, each in found.items() if not each.fresh}


@asynccontextmanager
async def led(
    *names: str, backend: Backend | None = None, cloud: Cloud | None = None, settings: Settings = SETTINGS
) -> AsyncIterator[Led]:
    cloud, settings = cloud or Cloud(names), settings.model_copy(update={"cvms": names})
    async with one_leader(settings, cloud, ModelClient, backend) as (_, own, upstream):
        await asyncio.sleep(15)
        yield Led(cloud, upstream, own)


TWELVE = tuple(f"cvm-{number:02}" for number in range(12))


@pytest.mark.parametrize("settings", [POLLING, SETTINGS], ids=["polled", "streamed"])
def test_a_proxys_404_for_some_seconds_is_no_event(settings: Settings) -> None:
    async def scenario() -> None:
        async with led(*TWELVE, settings=settings) as bridge:
            bridge.cloud.unrouted = frozenset({"plain", "streams"})
            await asyncio.sleep(8)
            bridge.cloud.unrouted = frozenset()
            await asyncio.sleep(60)
            assert (await bridge.transitions(), await bridge.stale(), bridge.upstream.fault) == ([], {}, "")

    run_virtual(scenario())


def test_while_a_proxy_answers_404_every_polled_watch_is_stale_and_the_fault_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with led(*TWELVE, settings=POLLING) as bridge:
            bridge.cloud.unrouted = frozenset({"plain", "streams"})
            await asyncio.sleep(150)
            assert (await bridge.transitions(), bridge.upstream.fault) == ([], NOT_FOUND)
            assert await bridge.stale() == dict.fromkeys(TWELVE, "not_found")
            bridge.cloud.unrouted = frozenset()
            await asyncio.sleep(60)
            assert (await bridge.transitions(), await bridge.stale(), bridge.upstream.fault) == ([], {}, "")

    run_virtual(scenario())
    assert [record.message for record in caplog.records].count(NOT_FOUND) == 1


@pytest.mark.parametrize("phalas_words", [False, True])
def test_no_cvm_is_deleted_that_another_prefix_or_key_does_not_find_after_a_restart(phalas_words: bool) -> None:
    async def scenario() -> None:
        backend, cloud = fake_backend(), Cloud(TWELVE)
        async with led(*TWELVE, backend=backend, cloud=cloud):
            pass
        other = Cloud(())
        other.unrouted = frozenset() if phalas_words else frozenset({"plain", "streams"})
        hasty = SETTINGS.model_copy(update={"watch_linger": 30})
        async with led(*TWELVE, backend=backend, cloud=other, settings=hasty) as bridge:
            await asyncio.sleep(120)
            assert (await bridge.transitions(), bridge.upstream.fault) == ([], NOT_FOUND)
            assert await bridge.stale() == dict.fromkeys(TWELVE, "not_found")
            await asyncio.sleep(150)  # longer than a watch lingers that nothing pins
            assert await bridge.stale() == dict.fromkeys(TWELVE, "not_found")
        await backend.close()

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("settings", "names"),
    [(POLLING, TWELVE), (POLLING, TWELVE[:1]), (SETTINGS, TWELVE), (SETTINGS, TWELVE[:5]), (SETTINGS, TWELVE[:1])],
    ids=["polled", "polled alone", "more than streams", "as many as streams", "streamed alone"],
)
def test_a_deleted_cvm_is_told_within_two_intervals_and_stays_deleted(
    settings: Settings, names: tuple[str, ...]
) -> None:
    async def scenario() -> None:
        async with led(*names, settings=settings) as bridge:
            bridge.cloud.change(names[0], None)
            await ReferenceLookups(bridge.backend).hint(names[0])
            await asyncio.sleep(TWO_INTERVALS + ANSWERS)
            assert await bridge.transitions() == [(names[0], "deleted")]
            await asyncio.sleep(130)  # it is read again twice
            assert (await bridge.transitions(), await bridge.stale()) == ([(names[0], "deleted")], {})
            bridge.cloud.change(names[0], "running")
            await asyncio.sleep(65)
            assert await bridge.transitions() == [(names[0], "deleted"), (names[0], "running")]

    run_virtual(scenario())


def test_all_cvms_deleted_at_once_are_told_when_the_list_has_none_of_them() -> None:
    async def scenario() -> None:
        async with led(*TWELVE, settings=POLLING) as bridge:
            for name in TWELVE:
                bridge.cloud.change(name, None)
            await asyncio.sleep(60)
            assert sorted(await bridge.transitions()) == [(name, "deleted") for name in TWELVE]
            assert bridge.upstream.fault == ""

    run_virtual(scenario())


def test_a_deletion_that_upstream_cannot_tell_of_any_more_is_no_event() -> None:
    async def scenario() -> None:
        async with led(*TWELVE[:2], settings=POLLING) as bridge:
            bridge.cloud.change(TWELVE[0], None)
            bridge.cloud.failing = ServerError
            await asyncio.sleep(40)
            assert (await bridge.transitions(), bridge.upstream.fault) == ([], "")

    run_virtual(scenario())


def test_a_batch_answer_does_not_vouch_for_a_cvm_that_the_state_route_does_not_find() -> None:
    async def scenario() -> None:
        async with led(*TWELVE, settings=POLLING) as bridge:
            bridge.cloud.unrouted = frozenset({"states"})
            await asyncio.sleep(120)
            assert (await bridge.transitions(), await bridge.stale()) == ([], dict.fromkeys(TWELVE, "not_found"))

    run_virtual(scenario())


async def test_a_cvm_whose_deletion_a_witness_proves_is_read_again_at_once() -> None:
    backend = fake_backend()
    context = await leading(backend, ServerError(status=500))
    tracked, other = context.watches["a"], Tracked.loaded("b", None, 1000.0)
    context.watches["b"], other.reads.backoff.until, context.witnesses.answered_at = other, 1030.0, 900.0
    tracked.reads.due = 1020.0
    for sent_at in (980.0, 990.0):
        tracked.absence.not_found(sent_at, sent_at, 10.0, own=True)
    await SecondWitness(context, Workspace(context)).look()
    assert tracked.reads.due == 1020.0
    context.witnesses.listing = Listing(frozenset(), 995.0)
    await SecondWitness(context, Workspace(context)).look()
    assert tracked.reads.due == 1000.0
    await backend.close()


def test_a_proxy_that_knows_no_streams_leads_to_polling() -> None:
    async def scenario() -> None:
        async with led(*TWELVE) as bridge:
            bridge.cloud.unrouted = frozenset({"streams"})
            bridge.cloud.cut += 1
            await asyncio.sleep(10)
            before, asked = sum(bridge.cloud.requests.values()), bridge.cloud.refused
            await asyncio.sleep(600)
            assert (await bridge.transitions(), await bridge.stale()) == ([], {})
            assert bridge.cloud.refused - asked <= 5 * 20
            assert sum(bridge.cloud.requests.values()) - before <= 600
            bridge.cloud.unrouted = frozenset()
            await asyncio.sleep(120)
            assert len(bridge.cloud.open) == 5

    run_virtual(scenario())


def test_a_hint_for_a_streamed_cvm_is_read_at_once() -> None:
    async def scenario() -> None:
        async with led("a", settings=Settings(stream_interval=30)) as bridge:
            bridge.cloud.change("a", "stopped")
            await ReferenceLookups(bridge.backend).hint("a")
            await asyncio.sleep(ANSWERS)
            assert (await bridge.transitions(), bridge.cloud.open) == ([("a", "stopped")], ["a"])

    run_virtual(scenario())


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.3])
def test_a_watch_that_ends_and_begins_again_is_read_at_once_and_gets_a_stream_of_its_own(gap: float) -> None:
    async def scenario() -> None:
        async with led(settings=Settings(watch_linger=0)) as bridge:
            bridge.cloud.status["a"] = "running"
            watches = Watches(bridge.backend)
            await watches.pin("a")
            await asyncio.sleep(20)
            await watches.unpin("a")
            await asyncio.sleep(gap)
            await watches.pin("a")
            await asyncio.sleep(ANSWERS)
            assert (await Snapshots(bridge.backend).all())["a"].status == "running"
            bridge.cloud.change("a", "stopped")
            await asyncio.sleep(6)
            assert (await bridge.transitions(), bridge.cloud.open) == ([("a", "stopped")], ["a"])
            assert bridge.cloud.broken == []

    run_virtual(scenario())
