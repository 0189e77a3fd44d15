"""`BRIDGE_CVMS=*`: who is let go, and who is not, in virtual time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from bridge.store.log import Log
from bridge.store.watches import Watches
from tests.fakes import fake_backend
from tests.unit.upstream.model import Cloud
from tests.unit.upstream.test_discovery import EVERYTHING, leading, names, watched
from tests.virtual import run_virtual


def test_a_pin_goes_once_two_whole_lists_lack_the_cvm() -> None:
    async def scenario() -> None:
        cloud = Cloud(["a", "b"])
        async with leading(cloud) as (client, backend, _):
            await asyncio.sleep(65)
            client.hidden, client.shown_total = frozenset(["b"]), 1
            await asyncio.sleep(30)
            assert (await Watches(backend).survey()).config_pins == {"a", "b"}
            client.hidden, client.shown_total = frozenset(), None
            await asyncio.sleep(120)
            assert (await Watches(backend).survey()).config_pins == {"a", "b"}
            client.hidden, client.shown_total = frozenset(["b"]), 1
            await asyncio.sleep(70)
            assert (await Watches(backend).survey()).config_pins == {"a"}
            await asyncio.sleep(30)
            assert await watched(backend) == {"a"}

    run_virtual(scenario())


def test_a_deleted_cvm_is_unpinned_by_the_next_whole_list() -> None:
    async def scenario() -> None:
        cloud = Cloud(names(12))
        async with leading(cloud) as (_, backend, _upstream):
            await asyncio.sleep(60)
            cloud.change("cvm-00003", None)
            await asyncio.sleep(31 + 31)
            assert "cvm-00003" not in (await Watches(backend).survey()).config_pins

    run_virtual(scenario())


def test_a_deleted_cvm_is_unpinned_while_a_page_of_the_list_fails() -> None:
    async def scenario() -> None:
        cloud = Cloud(names(150))
        async with leading(cloud) as (client, backend, _):
            await asyncio.sleep(60)
            client.failing_pages = frozenset([2])
            cloud.change("cvm-00003", None)
            cloud.change("cvm-00140", None)
            client.hidden = frozenset(["cvm-00141"])
            await asyncio.sleep(200)
            pins = (await Watches(backend).survey()).config_pins
            assert pins == set(names(150)) - {"cvm-00003", "cvm-00140"}
            assert await watched(backend) == pins

    run_virtual(scenario())


def test_an_empty_list_lets_nobody_go_whose_state_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        cloud = Cloud(names(12))
        async with leading(cloud) as (client, backend, _):
            await asyncio.sleep(60)
            client.hidden, client.shown_total = frozenset(cloud.status), 0
            await asyncio.sleep(300)
            assert (await Watches(backend).survey()).config_pins == set(names(12))
            assert {event.type for event in await Log(backend).read("0-0", 99)} == {"cvm.state"}

    run_virtual(scenario())
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


def test_a_workspace_that_is_emptied_is_told_and_let_go() -> None:
    async def scenario() -> None:
        cloud = Cloud(names(12))
        async with leading(cloud) as (_, backend, upstream):
            await asyncio.sleep(60)
            for name in names(12):
                cloud.change(name, None)
            await asyncio.sleep(200)
            assert await watched(backend) == set()
            deleted = [event.cvm_id for event in await Log(backend).read("0-0", 99) if '"to":"deleted"' in event.json]
            assert sorted(deleted) == names(12)
            assert upstream.fault == ""

    run_virtual(scenario())


def test_a_workspace_that_was_emptied_while_no_leader_ran_is_let_go_with_its_setting() -> None:
    """It looks like another account's, so that nothing is deleted; without the setting nothing is wanted."""

    async def scenario() -> None:
        cloud, backend = Cloud(names(3)), fake_backend()
        async with leading(cloud, backend=backend):
            await asyncio.sleep(60)
        for name in names(3):
            cloud.change(name, None)
        async with leading(cloud, backend=backend) as (_, _, upstream):
            await asyncio.sleep(200)
            assert await watched(backend) == set(names(3))
            assert upstream.fault
        async with leading(cloud, EVERYTHING.model_copy(update={"cvms": ()}), backend=backend) as (_, _, upstream):
            await asyncio.sleep(300)
            assert await watched(backend) == set()
            assert not upstream.fault
        await backend.close()

    run_virtual(scenario())
