"""`BRIDGE_CVMS` before a workspace in virtual time: who is found, who is let go, and what it costs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from bridge.config import Settings
from bridge.events import parse_state
from bridge.store.connection import Backend
from bridge.store.leader_status import read_leader_status
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.upstream.budget import REQUESTS_PER_SECOND
from bridge.upstream.client import Listed, ListPage, Reading
from bridge.upstream.errors import ServerError, UnparsableError
from bridge.upstream.leader import Upstream
from bridge.upstream.workspace import Workspace
from tests.fakes import fake_backend
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

EVERYTHING = Settings(cvms=("*",), poll_interval=10, stream_timeout=60, watch_linger=20)
ANSWER_TIMEOUT = 10.0


class Lister(ModelClient):
    """Counts reads, and can have trouble with some references and pages."""

    shown_total: int | None = None
    """What the list says instead of the true count."""
    hidden: frozenset[str] = frozenset()
    """CVMs that the list does not name, though it counts them."""
    failing_pages: frozenset[int] = frozenset()
    hanging: frozenset[str] = frozenset()
    garbled = False
    """A maintenance page answers every request with status 200."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.reads: Counter[str] = Counter()
        self.pages: Counter[int] = Counter()

    async def read_state(self, ref: str) -> Reading:
        self.reads[ref] += 1
        if ref in self.hanging:
            await asyncio.sleep(ANSWER_TIMEOUT)
            raise ServerError
        if self.garbled:
            raise UnparsableError(status=200)
        return await super().read_state(ref.removeprefix("vm-"))

    async def list_page(self, number: int) -> ListPage:
        self.pages[number] += 1
        if number in self.failing_pages:
            raise ServerError(status=500)
        if self.garbled:
            raise UnparsableError(status=200)
        page = await super().list_page(number)
        total = page.total if self.shown_total is None else self.shown_total
        return ListPage(tuple(each for each in page.entries if each.name not in self.hidden), total, page.pages)


class HashedLister(Lister):
    """The list names other ids than the states carry."""

    def _listed(self, name: str, status: str) -> Listed:
        return Listed(hashed_id=f"vm-{name}", name=name, status=status)


@asynccontextmanager
async def leading(
    cloud: Cloud,
    settings: Settings = EVERYTHING,
    kind: type[Lister] = Lister,
    backend: Backend | None = None,
    **trouble: object,
) -> AsyncIterator[tuple[Lister, Backend, Upstream]]:
    async with one_leader(settings, cloud, kind, backend) as (client, own, upstream):
        for name, value in trouble.items():
            setattr(client, name, value)
        yield client, own, upstream


def names(count: int) -> list[str]:
    return [f"cvm-{number:05}" for number in range(count)]


def create(cloud: Cloud, name: str) -> None:
    cloud.status[name] = None
    cloud.change(name, "running")


async def watched(backend: Backend) -> set[str]:
    return set((await Watches(backend).survey()).watches)


async def progress(backend: Backend) -> tuple[int, int]:
    """How many CVMs are known, and of how many, as the leader tells."""
    status = await read_leader_status(backend)
    return status["known"], status["found"]


# The whole list


@pytest.mark.parametrize("kind", [Lister, HashedLister])
def test_a_first_start_takes_as_long_as_one_read_of_each_cvm(kind: type[Lister]) -> None:
    async def scenario() -> None:
        count = 400
        settings = EVERYTHING.model_copy(update={"max_streams": 0})
        async with leading(Cloud(names(count)), settings, kind) as (client, backend, _):
            await asyncio.sleep(1.1 * count / REQUESTS_PER_SECOND)
            assert set(await Snapshots(backend).all()) == set(names(count))
            assert client.reads.total() <= 1.1 * count
            await asyncio.sleep(30)
            # No batch answer has a state read only because it is the first one.
            assert client.reads.total() <= 1.1 * count + 2 * 30

    run_virtual(scenario())


def test_at_a_first_start_cvms_in_motion_are_read_first_and_the_pace_grows() -> None:
    async def scenario() -> None:
        cloud, last = Cloud(names(400)), set(names(400)[-4:])
        cloud.status |= dict.fromkeys(last, "starting")
        async with leading(cloud, EVERYTHING.model_copy(update={"max_streams": 0})) as (client, backend, _):
            await asyncio.sleep(4)
            assert last < set(await Snapshots(backend).all()) < set(names(400))
            assert (await progress(backend))[1] == 400
            assert 8 < (await progress(backend))[0] < 200
            await asyncio.sleep(12)
            assert await progress(backend) == (400, 400)
            assert len(await Snapshots(backend).all()) == 400
            assert client.reads.total() <= 1.05 * 400

    run_virtual(scenario())


def test_a_change_is_seen_while_a_first_start_goes_on() -> None:
    async def scenario() -> None:
        paced = {"max_streams": 0, "upstream_pace": (REQUESTS_PER_SECOND,)}
        cloud, settings = Cloud(names(800)), EVERYTHING.model_copy(update=paced)
        async with leading(cloud, settings) as (client, backend, _):
            await asyncio.sleep(5)
            cloud.change("cvm-00000", "stopped")
            await asyncio.sleep(15)
            snapshots = await Snapshots(backend).all()
            assert len(snapshots) < 500
            assert snapshots["cvm-00000"].status == "stopped"
            await asyncio.sleep(1.1 * 800 / REQUESTS_PER_SECOND - 20)
            assert len(await Snapshots(backend).all()) == 800
            await asyncio.sleep(30)
            assert client.reads.total() <= 1.1 * 800

    run_virtual(scenario())


def test_more_than_ten_thousand_cvms_are_all_found() -> None:
    async def scenario() -> None:
        cloud, found = Cloud(names(10_050)), set[str]()
        settings = Settings(max_streams=0)
        async with leading(cloud, settings) as (client, _, upstream):
            await asyncio.sleep(1)
            assert upstream.context is not None
            listed = Workspace(upstream.context)
            listed.on_entry = lambda entry: found.add(str(entry.vm_uuid))
            directory = await listed.listed_since(0.0, 30.0)
            assert directory is not None
            assert directory.keys == found == set(cloud.status)
            assert client.pages.total() == 101

    run_virtual(scenario())


def test_a_list_that_counts_more_than_it_names_is_told_once_and_lets_nobody_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        cloud = Cloud(names(150))
        async with leading(cloud) as (client, backend, _):
            await asyncio.sleep(60)
            client.hidden = frozenset(["cvm-00003", "cvm-00120"])
            await asyncio.sleep(200)
            assert await watched(backend) == set(cloud.status)
            assert REGISTRY.get_sample_value("bridge_upstream_unlisted") == 2
            client.hidden = frozenset()
            await asyncio.sleep(60)
            assert REGISTRY.get_sample_value("bridge_upstream_unlisted") == 0

    run_virtual(scenario())
    assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 1


def test_a_page_that_fails_is_asked_for_again_alone_and_the_others_are_used_at_once() -> None:
    async def scenario() -> None:
        cloud = Cloud(names(250))
        async with leading(cloud) as (client, backend, _):
            await asyncio.sleep(60)
            client.failing_pages = frozenset([2])
            client.pages.clear()
            await asyncio.sleep(30)
            create(cloud, "zz-new")
            await asyncio.sleep(31)
            assert "zz-new" in await watched(backend)
            assert client.pages[2] <= 20
            assert client.pages[1] <= 3
            client.failing_pages = frozenset()
            client.pages.clear()
            create(cloud, "zz-newer")
            await asyncio.sleep(31)
            assert "zz-newer" in await watched(backend)
            assert max(client.pages.values()) <= 2

    run_virtual(scenario())


def test_a_page_that_failed_for_a_moment_is_there_long_before_the_next_list() -> None:
    async def scenario() -> None:
        async with leading(Cloud(names(150)), failing_pages=frozenset([2])) as (client, backend, _):
            await asyncio.sleep(3)
            assert "cvm-00120" not in await watched(backend)
            client.failing_pages = frozenset()
            await asyncio.sleep(12)
            assert await watched(backend) == set(names(150))
            assert client.pages[1] == 1

    run_virtual(scenario())


# Hints and costs


def test_a_listed_status_that_differs_has_the_state_read_and_is_never_a_state() -> None:
    async def scenario() -> None:
        cloud = Cloud(["a", "b"])
        settings = EVERYTHING.model_copy(update={"max_streams": 0, "poll_interval": 3600})
        async with leading(cloud, settings) as (client, backend, _):
            await asyncio.sleep(45)
            cloud.change("a", "stopped")
            await asyncio.sleep(31)
            assert (await Snapshots(backend).get(["a"]))["a"].status == "stopped"
            client._listed = lambda name, status: Listed(vm_uuid=name, name=name, status="Running")  # type: ignore[method-assign]
            client.reads.clear()
            await asyncio.sleep(300)
            assert client.reads["b"] <= 3  # one hint, and the sweep of an hour's interval
            assert {event.type for event in await Log(backend).read("0-0", 99)} == {"cvm.state", "cvm.transition"}

    run_virtual(scenario())


def test_named_cvms_are_resolved_by_one_list_and_cost_what_listed_ones_cost() -> None:
    async def scenario() -> None:
        cloud = Cloud(names(300))
        settings = EVERYTHING.model_copy(update={"cvms": tuple(cloud.status), "max_streams": 0})
        async with leading(cloud, settings) as (client, backend, _):
            await asyncio.sleep(1.1 * 300 / REQUESTS_PER_SECOND)
            assert set(await Snapshots(backend).all()) == set(cloud.status)
            assert client.reads.total() <= 1.1 * 300
            await asyncio.sleep(60)
            cloud.requests.clear()
            await asyncio.sleep(120)
            assert sum(cloud.requests.values()) / 120 <= 2.6

    run_virtual(scenario())


def test_a_reference_that_is_looked_up_is_not_read_twice_while_it_is_watched() -> None:
    async def scenario() -> None:
        cloud = Cloud(["a"])
        settings = EVERYTHING.model_copy(update={"max_streams": 0, "poll_interval": 3600})
        async with leading(cloud, settings) as (client, backend, _):
            await asyncio.sleep(40)
            client.reads.clear()
            cloud.change("a", "stopped")
            await ReferenceLookups(backend).ask("vm-a")
            await asyncio.sleep(3)
            assert (await Snapshots(backend).get(["a"]))["a"].status == "stopped"
            assert client.reads == {"vm-a": 1}

    run_virtual(scenario())


# Names


def test_names_that_hang_delay_no_other() -> None:
    async def scenario() -> None:
        cloud = Cloud(["one", "two", "three", "well"])
        settings = EVERYTHING.model_copy(update={"cvms": ("one", "two", "three", "well")})
        hanging = frozenset(["one", "two", "three"])
        for failing in (frozenset[int](), frozenset([1])):
            async with leading(cloud, settings, hanging=hanging, failing_pages=failing) as (_, backend, _upstream):
                await asyncio.sleep(5)
                assert set(await Snapshots(backend).all()) == {"well"}
                await asyncio.sleep(30)
                assert REGISTRY.get_sample_value("bridge_references_unresolved") == 3

    run_virtual(scenario())


def test_a_probe_of_a_configured_reference_that_fails_takes_no_pin_from_the_others() -> None:
    async def scenario() -> None:
        cloud, backend = Cloud(["first", "second"]), fake_backend()
        settings = EVERYTHING.model_copy(update={"cvms": ("first", "second")})
        async with leading(cloud, settings, backend=backend):
            await asyncio.sleep(60)
        async with leading(cloud, settings, backend=backend, garbled=True):
            await asyncio.sleep(300)
            assert (await Watches(backend).survey()).config_pins == {"first", "second"}
        await backend.close()

    run_virtual(scenario())


def test_a_maintenance_page_at_the_start_makes_no_watch_of_a_reference() -> None:
    async def scenario() -> None:
        cloud = Cloud(["a", "b"])
        settings = EVERYTHING.model_copy(update={"cvms": ("vm-a", "vm-b")})
        async with leading(cloud, settings, garbled=True) as (client, backend, _):
            await asyncio.sleep(60)
            assert await watched(backend) == set()
            client.garbled = False
            await asyncio.sleep(60)
            assert await watched(backend) == set(await Snapshots(backend).all()) == {"a", "b"}

    run_virtual(scenario())


def test_a_name_that_moved_has_the_new_cvm_watched_and_lets_the_old_one_go() -> None:
    async def scenario() -> None:
        cloud = Cloud(["old", "new"])
        settings = EVERYTHING.model_copy(update={"cvms": ("web",)})
        owner = "old"

        def listed(name: str, status: str) -> Listed:
            return Listed(vm_uuid=name, name="web" if name == owner else "idle", status=status)

        async with leading(cloud, settings, _listed=listed) as (_, backend, _upstream):
            await asyncio.sleep(30)
            assert await watched(backend) == {"old"}
            owner = "new"
            await asyncio.sleep(65)
            assert (await Watches(backend).survey()).config_pins == {"old", "new"}
            await asyncio.sleep(130)
            assert await watched(backend) == {"new"}

    run_virtual(scenario())


def test_a_state_without_an_id_is_known_by_the_list() -> None:
    async def scenario() -> None:
        cloud = Cloud(["a"])
        settings = EVERYTHING.model_copy(update={"cvms": ()})
        async with leading(cloud, settings) as (client, backend, _):

            async def nameless(ref: str) -> Reading:
                return Reading(parse_state('{"status":"running"}'), 1.0, 1.1)

            client.read_state = nameless  # type: ignore[method-assign]
            client._listed = lambda name, status: Listed(vm_uuid=name, name="web", status=status)  # type: ignore[method-assign]
            await asyncio.sleep(1)
            await ReferenceLookups(backend).ask("web")
            await asyncio.sleep(2)
            answer = await ReferenceLookups(backend).ask("web")
            assert answer is not None
            assert answer.cvm_id == "a"

    run_virtual(scenario())
