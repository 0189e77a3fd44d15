"""Apps and patterns, in `BRIDGE_CVMS` and from subscribers: members come and go while they stand, in virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.store.leader_status import read_leader_status
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.upstream import membership
from tests.fakes import fake_backend
from tests.unit.upstream.fleets import OTHER, WEB, Fleet, FleetClient
from tests.unit.upstream.test_discovery import leading, watched
from tests.virtual import run_virtual

REPLICAS = {"w1": (WEB, "web-1"), "w2": (WEB, "web-2"), "d1": (OTHER, "db-1")}


def settings(*cvms: str, **more: Any) -> Settings:
    return Settings(cvms=cvms, **({"watch_linger": 5} | more))


async def events(backend: Backend) -> list[dict[str, Any]]:
    return [json.loads(event.json) for event in await Log(backend).read("0-0", 9999)]


async def pinned(backend: Backend) -> frozenset[str]:
    return (await Watches(backend).survey()).config_pins


@pytest.mark.parametrize("reference", [WEB, "name:web-?"])
def test_all_members_of_a_configured_set_are_watched_and_new_ones_enter_with_their_first_state(reference: str) -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS)
        async with leading(fleet, settings(reference), FleetClient) as (_, backend, _upstream):
            await asyncio.sleep(10)
            assert await watched(backend) == {"w1", "w2"} == set(fleet.open)
            fleet.add("w3", WEB, "web-3")
            fleet.add("d2", OTHER, "db-2")
            await asyncio.sleep(31)
            assert await watched(backend) == {"w1", "w2", "w3"}
            first = next(each for each in await events(backend) if each["subject"] == "w3")
            assert first["type"] == "cvm.state"
            assert (first["data"]["from"], first["data"]["to"]) == (None, "starting")
            assert (first["data"]["name"], first["data"]["app_id"]) == ("web-3", "0a")

    run_virtual(scenario())


@pytest.mark.parametrize("hinted", ["w3", "hashed-w3"])
def test_a_new_member_that_a_hint_names_enters_at_once_and_others_do_not(hinted: str) -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS)
        async with leading(fleet, settings(WEB), FleetClient) as (client, backend, _):
            await asyncio.sleep(12)
            fleet.add("w3", WEB, "web-3")
            fleet.add("d2", OTHER, "db-2")
            client.pages.clear()
            for reference in (hinted, "hashed-d2", "hashed-unknown"):
                await ReferenceLookups(backend).hint(reference)
            await asyncio.sleep(3)
            assert set(await Snapshots(backend).all()) == {"w1", "w2", "w3"}
            assert client.pages.total() == 0

    run_virtual(scenario())


def test_a_member_leaves_when_two_lists_lack_it_or_it_is_deleted_and_not_for_one_list() -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS)
        async with leading(fleet, settings(WEB, "name:db-*"), FleetClient) as (client, backend, _):
            await asyncio.sleep(29)
            client.hidden, client.shown_total = frozenset(["web-1"]), 2
            await asyncio.sleep(30)
            assert await pinned(backend) == {"w1", "w2", "d1"}
            await asyncio.sleep(30)
            assert await pinned(backend) == {"w2", "d1"}
            fleet.change("d1", None)
            client.shown_total = 1
            await asyncio.sleep(40)
            assert await pinned(backend) == {"w2"}
            told = [each["data"].get("to") for each in await events(backend) if each["subject"] == "d1"]
            assert "deleted" in told

    run_virtual(scenario())


def test_a_renamed_cvm_leaves_the_pattern_or_enters_it_and_its_state_tells_the_name() -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS)
        more = {"max_streams": 0, "poll_interval": 3600, "watch_linger": 300}
        async with leading(fleet, settings("name:web-*", **more), FleetClient) as (_, backend, _upstream):
            await asyncio.sleep(10)
            fleet.rename("w1", "idle")
            fleet.rename("d1", "web-9")
            await asyncio.sleep(35)
            snapshots = await Snapshots(backend).all()
            assert {cvm_id: each.name for cvm_id, each in snapshots.items()} == {
                "w1": "idle",
                "w2": "web-2",
                "d1": "web-9",
            }
            await asyncio.sleep(60)
            assert await pinned(backend) == {"w2", "d1"}

    run_virtual(scenario())


def test_a_subscriber_of_a_set_has_its_members_watched_for_as_long_as_it_stays() -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS)
        async with leading(fleet, settings(), FleetClient) as (client, backend, upstream):
            watches = Watches(backend)
            await asyncio.sleep(10)
            assert client.pages.total() == 0
            await watches.announce("front", {WEB: 2, "name:*-1": 1}, 600)
            await asyncio.sleep(3)
            assert await watched(backend) == {"w1", "w2", "d1"} == set(fleet.open)
            assert upstream.context is not None
            counted = {each.cvm_id: each.demand.subscribers for each in upstream.context.watches.values()}
            assert counted == {"w1": 3, "w2": 2, "d1": 1}
            fleet.add("w3", WEB, "web-3")
            await asyncio.sleep(31)
            client.failing_pages = frozenset([1])  # its own reads tell that one is gone
            fleet.change("w2", None)
            await asyncio.sleep(60)
            assert await watched(backend) == {"w1", "w3", "d1"}
            client.failing_pages = frozenset()
            await watches.announce("front", {"name:*-1": 1}, 600)
            await asyncio.sleep(10)
            assert await watched(backend) == {"w1", "d1"}
            await watches.retire("front")
            await asyncio.sleep(10)
            assert await watched(backend) == set()
            await watches.announce("front", {WEB: 1}, 600)
            await asyncio.sleep(10)
            assert await watched(backend) == {"w1", "w3"}
            assert await pinned(backend) == frozenset()

    run_virtual(scenario())


def test_a_set_that_is_new_takes_the_last_list_and_asks_for_no_other() -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS)
        async with leading(fleet, settings(OTHER), FleetClient) as (client, backend, _):
            await asyncio.sleep(5)
            client.pages.clear()
            for number in range(20):
                await Watches(backend).announce(f"front-{number}", {f"app_{number:x}": 1, WEB: 1}, 600)
                await asyncio.sleep(0.5)
            assert await watched(backend) == {"w1", "w2", "d1"}
            assert client.pages.total() == 0

    run_virtual(scenario())


def test_members_whom_subscribers_name_stay_when_two_lists_fail_and_leave_when_two_lack_them() -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS)
        async with leading(fleet, settings(), FleetClient) as (client, backend, _):
            await Watches(backend).announce("front", {WEB: 1}, 600)
            await asyncio.sleep(20)
            client.failing_pages = frozenset([1])
            await asyncio.sleep(75)
            assert await watched(backend) == {"w1", "w2"}
            client.failing_pages = frozenset()
            await asyncio.sleep(60)
            client.pages.clear()
            client.hidden, client.shown_total = frozenset(["web-1"]), 2
            for number in range(75):
                # A round for a new set takes the last list, and does not count it again.
                await Watches(backend).announce("other", {f"app_f{number}": 1}, 600)
                await asyncio.sleep(1)
                assert await watched(backend) == {"w1", "w2"} or client.pages[1] > 1
            assert await watched(backend) == {"w2"}
            client.hidden, client.shown_total = frozenset(), None
            await asyncio.sleep(33)
            assert await watched(backend) == {"w1", "w2"}

    run_virtual(scenario())


def test_a_new_leader_keeps_all_members_while_it_cannot_list_them() -> None:
    async def scenario() -> None:
        fleet, backend = Fleet(REPLICAS), fake_backend()
        given = settings("name:db-*", watch_linger=0)
        async with leading(fleet, given, FleetClient, backend):
            await Watches(backend).announce("front", {WEB: 1}, 600)
            await asyncio.sleep(20)
        fleet.add("w3", WEB, "web-3")
        async with leading(fleet, given, FleetClient, backend, failing_pages=frozenset([1])) as (client, _, _upstream):
            await asyncio.sleep(90)
            assert await watched(backend) == {"w1", "w2", "d1"}
            client.failing_pages = frozenset()
            await asyncio.sleep(31)
            assert await watched(backend) == {"w1", "w2", "w3", "d1"}
            assert not any(each["type"] == "watch.dropped" for each in await events(backend))
        await backend.close()

    run_virtual(scenario())


def test_a_member_that_the_list_names_by_another_id_stays_while_its_state_cannot_be_read() -> None:
    async def scenario() -> None:
        fleet, backend, given = Fleet(REPLICAS), fake_backend(), settings(watch_linger=0)
        for unreadable in (set[str](), {"w1"}):
            fleet.silent = unreadable
            async with leading(fleet, given, FleetClient, backend, listed_by_uuid=False):
                await Watches(backend).announce("front", {WEB: 1}, 600)
                await asyncio.sleep(100)
                assert await watched(backend) == {"w1", "w2"}
        await backend.close()

    run_virtual(scenario())


def test_a_new_leader_ends_no_watch_before_it_has_taken_all_sets_and_takes_a_bounded_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(membership, "NEW_AT_ONCE", 3)
    monkeypatch.setattr(membership, "MOST_SETS", 10)

    async def scenario() -> None:
        fleet = Fleet({f"c{number}": (f"app_{number:02x}", f"name-{number}") for number in range(12)})
        backend = fake_backend()
        for _ in range(2):
            async with leading(fleet, settings(watch_linger=0), FleetClient, backend):
                await Watches(backend).announce("front", {f"app_{number:02x}": 1 for number in range(12)}, 600)
                await asyncio.sleep(20)
                assert await watched(backend) == {f"c{number}" for number in range(10)}
        assert not any(each["type"] == "watch.dropped" for each in await events(backend))
        await backend.close()

    run_virtual(scenario())
    assert sum("too many sets" in record.message for record in caplog.records) == 2


def test_a_reference_that_names_none_or_several_is_told_and_hinders_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        fleet = Fleet(REPLICAS | {"x1": (OTHER, "twin"), "x2": (OTHER, "twin")})
        given = settings("twin", "name:job-*", "app_ff", "web-1")
        async with leading(fleet, given, FleetClient) as (_, backend, upstream):
            await asyncio.sleep(100)
            assert await watched(backend) == {"w1"}
            unmet = {
                "twin": "several CVMs match it",
                "name:job-*": "no CVM matches it yet",
                "app_ff": "no CVM matches it yet",
            }
            assert upstream.note == "BRIDGE_CVMS: " + "; ".join(f"{text}: {why}" for text, why in unmet.items())
            assert (await read_leader_status(backend))["unmet"] == unmet
            fleet.add("j1", "app_ff", "job-1")
            await asyncio.sleep(31)
            assert await watched(backend) == {"w1", "j1"}
            assert upstream.note == "BRIDGE_CVMS: twin: several CVMs match it"

    run_virtual(scenario())
    assert sum("matches no CVM yet" in record.message for record in caplog.records) == 2
    assert sum("cannot be resolved" in record.message for record in caplog.records) == 1
