"""A Redis that is away for longer than the lease, or comes back without its last writes: what streams showed meanwhile
is told once, in order, under numbers that nobody has seen before.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridge.events import Event
from bridge.store.errors import StoreError
from tests.bridges import Whole, sse, whole
from tests.servers import Guarded, RealServer, eventually

LOST = "Redis lost events that it had confirmed"


async def told(bridge: Whole, cvm_id: str) -> list[str]:
    """The statuses of one CVM in the log; empty while Redis is away."""
    try:
        found = [json.loads(event.json)["data"] for event in await bridge.log() if event.cvm_id == cvm_id]
    except StoreError:
        return []
    return [data["to"] for data in found if "to" in data]


def tells(bridge: Whole, cvm_id: str, *statuses: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await told(bridge, cvm_id) == ["running", *statuses]

    return holds


async def change(bridge: Whole, cvm_id: str, *statuses: str) -> None:
    for status in statuses:
        await bridge.patch(cvm_id, status=status)
        await asyncio.sleep(0.1)


def no_number_twice(before: list[Event], after: list[Event]) -> None:
    numbers = [event.sequence for event in after]
    assert numbers == sorted(set(numbers))
    used = {event.sequence: event.id for event in before}
    assert all(used.get(event.sequence, event.id) == event.id for event in after)


async def test_what_streams_showed_while_redis_hung_for_longer_than_the_lease_is_told(own_server: RealServer) -> None:
    async with whole(own_server.url, cvms=2) as bridge:
        first = bridge.ids[0]
        await bridge.until_seen(2)
        await bridge.until(lambda: streams(bridge, 2), "both are streamed")
        own_server.freeze()
        await change(bridge, first, "stopping", "stopped", "starting", "running")

        async def over() -> bool:
            return not bridge.upstream.leading

        await bridge.until(over, "the end of the term")
        own_server.thaw()
        await bridge.until(tells(bridge, first, "stopping", "stopped", "starting", "running"), "all of it")
        sequences = [event.sequence for event in await bridge.log()]
        assert sequences == list(range(1, len(sequences) + 1))


async def streams(bridge: Whole, count: int) -> bool:
    return len((await bridge.control("GET", "/streams"))["items"]) == count


async def test_a_promoted_replica_without_the_last_events_gets_them_again(
    redis_guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    async with whole(redis_guarded.url, cvms=2) as bridge:
        first = bridge.ids[0]
        await bridge.until_seen(2)
        await change(bridge, first, "stopping")
        await bridge.until(tells(bridge, first, "stopping"), "the change")
        await bridge.backend.client.wait(1, 5000)
        cut_off(redis_guarded)
        await change(bridge, first, "stopped", "starting")
        await bridge.until(tells(bridge, first, "stopping", "stopped", "starting"), "changes that no replica has")
        before = await bridge.log()
        headers = {"Last-Event-ID": before[-1].id}
        async with asyncio.TaskGroup() as group:
            following = group.create_task(sse(bridge.http, f"{bridge.url}/v1/events", 1, headers=headers))
            await asyncio.sleep(0.2)
            redis_guarded.primary.kill()
            await bridge.until(tells(bridge, first, "stopping", "stopped", "starting"), "the same changes again")
            assert following.result() if following.done() else await following
        assert following.result()[0][0] == "reset"
        await change(bridge, first, "running")
        await bridge.until(tells(bridge, first, "stopping", "stopped", "starting", "running"), "what follows")
        no_number_twice(before, await bridge.log())
        assert caplog.text.count(LOST) == 1
        assert (await bridge.cvm(first))["status"] == "running"


def cut_off(guarded: Guarded) -> None:
    """The replica stays as it is from now on, and still counts as fit to be promoted."""
    guarded.primary.call("ACL", "SETUSER", "default", "-psync", "-sync")
    guarded.primary.call("CLIENT", "KILL", "TYPE", "replica")
    eventually(lambda: guarded.replica.call("INFO")["master_link_status"] == "down", "the replica cut off")


@pytest.mark.parametrize("saved", [True, False])
async def test_a_server_that_restarts_without_its_last_writes(
    server_binary: Path, saved: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With a saved file it lacks the last events; without one it is empty, and a new log begins."""
    with RealServer(server_binary, tcp=True) as server:
        async with whole(server.url, cvms=2) as bridge:
            first = bridge.ids[0]
            await bridge.until_seen(2)
            await change(bridge, first, "stopping")
            await bridge.until(tells(bridge, first, "stopping"), "the change")
            if saved:
                server.call("SAVE")
            await change(bridge, first, "stopped", "starting")
            await bridge.until(tells(bridge, first, "stopping", "stopped", "starting"), "what is not saved")
            before = await bridge.log()
            server.kill()
            await change(bridge, first, "running")
            server.start()
            if saved:
                await bridge.until(tells(bridge, first, "stopping", "stopped", "starting", "running"), "all again")
                no_number_twice(before, await bridge.log())
                assert LOST in caplog.text
            else:
                await bridge.until_seen(2)
                assert [event.sequence for event in await bridge.log()] == [1, 2]
                assert min(event.id for event in await bridge.log()) > before[-1].id
