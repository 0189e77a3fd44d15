"""What endpoints' health tells becomes events: each once, and about no CVM, whatever the endpoint is called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import TypeVar

from bridge.events import ENDPOINT_DISABLED, NOTICES, Event
from bridge.store.connection import Backend
from bridge.store.endpoints import Endpoints
from bridge.store.limits import LaneLimits
from bridge.store.log import Log
from bridge.store.notices import Notices
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from tests.lanes import endpoint
from tests.unit.upstream.recording import Process, leading

T = TypeVar("T")


async def disable(backend: Backend, *names: str) -> None:
    for name in names:
        await Endpoints(backend).create(endpoint(name))
        await Endpoints(backend).disable(name, "why")


async def noticed(backend: Backend) -> list[Event]:
    return [event for event in await Log(backend).read("0-0", 999) if event.type in NOTICES]


async def test_a_notice_about_an_endpoint_that_is_called_as_a_cvm_changes_nothing_about_the_cvm(
    backend: Backend,
) -> None:
    process = await leading(backend)
    before = await Snapshots(backend).all(), await Watches(backend).existing(["a"])
    heard: list[str] = []
    own, every = backend.keys.events_of("a"), backend.keys.events
    async with backend.client.pubsub() as listener:
        await listener.subscribe(own, every, f"{every}:")
        await disable(backend, "a")
        await process.take_notices()
        while (message := await listener.get_message(timeout=0.1)) is not None:
            if message["type"] == "message":
                heard.append(message["channel"])
    (event,) = await noticed(backend)
    assert (event.type, event.cvm_id, event.endpoint_id, event.sequence) == (ENDPOINT_DISABLED, "", "a", 2)
    assert json.loads(event.json)["data"]["reason"] == "why"
    assert heard == [every]
    assert (await Snapshots(backend).all(), await Watches(backend).existing(["a"])) == before
    await process.see("a", "stopped")
    await process.write()
    assert (await Snapshots(backend).all())["a"].status == "stopped"


async def test_a_leader_that_dies_between_reading_and_writing_leaves_them_to_the_next(backend: Backend) -> None:
    process, other = await leading(backend), Process(backend, "other")
    await disable(backend, "e", "f")
    taking = asyncio.create_task(process.take_notices())
    while not process.recorder._writing.locked():  # noqa: ASYNC110 - the fake answers in so many steps of the loop
        await asyncio.sleep(0)
    process.backend.cut = "before"
    await asyncio.sleep(0.01)
    taking.cancel()
    await asyncio.wait([taking])
    process.backend.cut = ""
    assert await noticed(backend) == []
    await process.resign()
    await other.lead()
    await other.take_notices()
    await other.take_notices()
    assert [event.endpoint_id for event in await noticed(backend)] == ["e", "f"]
    assert await backend.client.xlen(backend.keys.notices) == 0


async def test_what_waited_to_be_written_again_is_written_once_by_a_new_term(backend: Backend) -> None:
    """Redis had the event and its answer was lost: the notice is gone."""
    process = await leading(backend)
    await disable(backend, "e")
    process.backend.cut = "after"
    await process.try_to_take_notices()
    process.backend.cut = ""
    await process.resign()
    await process.lead()
    await process.take_notices()
    assert len(await noticed(backend)) == 1
    assert (await Snapshots(backend).all()).keys() == {"a"}


class Busy(Backend):
    """After each command, a dispatcher counts one more."""

    more = 0

    async def call(self, command: Awaitable[T]) -> T:
        done = await super().call(command)
        self.more += 1
        await self.client.hincrby(self.keys.webhooks, "untold", 1)
        return done


async def test_what_does_not_fit_while_it_is_counted_is_counted_the_next_time(backend: Backend) -> None:
    await backend.client.hset(backend.keys.webhooks, "untold", 1)
    busy = Busy(backend.client, "bridge")
    counted = await Notices(busy).take_untold()
    assert counted + await Notices(backend).take_untold() == 1 + busy.more


async def test_what_did_not_fit_is_counted_once(backend: Backend) -> None:
    full = Endpoints(backend, LaneLimits(notices=0))
    await full.create(endpoint("e"))
    await full.disable("e", "why")
    notices = Notices(backend)
    assert [await notices.take_untold() for _ in range(2)] == [1, 0]
    await backend.client.delete(backend.keys.webhooks)
    await backend.client.set(backend.keys.webhooks, "text")
    assert await notices.take_untold() == 0
