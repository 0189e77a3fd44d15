"""A dispatcher whose Redis primary is killed under it: what the promoted replica's log holds arrives, in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from bridge.store.errors import StoreError
from bridge.store.lanes import Entry, Lanes
from tests.real.test_dispatcher import Sending, sending
from tests.receivers import Hit
from tests.servers import Guarded

CVMS = "abc"
FEW = 12


async def slow(hit: Hit) -> int:
    await asyncio.sleep(0.02)
    return 204


async def kept_events(stage: Sending) -> list[Entry]:
    """The whole log of whatever server leads now."""
    while True:
        try:
            return (await Lanes(stage.backend).read("0-0", 1000))[0]
        except StoreError:
            await asyncio.sleep(0.1)


async def cut_off(guarded: Guarded) -> None:
    """From now on the replica hears nothing of what the primary writes."""
    await asyncio.to_thread(guarded.replica.freeze)
    await asyncio.to_thread(guarded.primary.call, "CLIENT", "KILL", "TYPE", "replica")


@pytest.mark.parametrize("behind", [False, True])
async def test_what_the_promoted_replicas_log_holds_arrives_in_order(redis_guarded: Guarded, behind: bool) -> None:
    async with sending(redis_guarded.url) as stage:
        receiver = stage.receiver
        receiver.answer = slow
        await stage.register("e", "f")
        await stage.append(*(CVMS * FEW))
        await receiver.until(lambda: len(receiver.accepted) > 5, "some are delivered")
        await stage.backend.client.wait(1, 5000)
        if behind:
            await cut_off(redis_guarded)
            await stage.append(*CVMS)
            await receiver.until(lambda: len(receiver.accepted) == 2 * 3 * (FEW + 1), "all, and three will be lost")
        await asyncio.to_thread(redis_guarded.primary.kill)
        redis_guarded.replica.thaw()
        await stage.append(*(CVMS * FEW))
        wanted = defaultdict[str, list[str]](list)
        for entry in await kept_events(stage):
            wanted[entry.event.cvm_id].append(str(entry.to))
        assert [len(numbers) for numbers in wanted.values()] == [2 * FEW] * 3
        ids = {(path, cvm, number) for path in ("/e", "/f") for cvm, numbers in wanted.items() for number in numbers}
        await receiver.until(
            lambda: ids <= {(hit.path, hit.cvm_id, hit.number) for hit in receiver.accepted}, "all that the log holds"
        )
        for path in ("/e", "/f"):
            for cvm, numbers in wanted.items():
                assert [each for each in receiver.order(path, cvm) if each in numbers] == numbers
        names = {(hit.path, hit.number): hit.id for hit in receiver.hits}
        assert all(names[hit.path, hit.number] == hit.id for hit in receiver.hits)
