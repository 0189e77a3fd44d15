"""Upstream takes a stream's request and says nothing, while watches come and go."""

from __future__ import annotations

import asyncio

import pytest

from bridge.store.watches import Watches
from tests.bridges import Whole, whole

ROUNDS = 200


async def churn(bridge: Whole, watches: Watches, rounds: int) -> None:
    """Three watches stand at any time; each is left alone long enough for a stream to be asked for."""
    for number in range(rounds):
        await watches.pin(bridge.ids[number % len(bridge.ids)])
        await asyncio.sleep(0.02)
        if number >= 3:
            await watches.unpin(bridge.ids[(number - 3) % len(bridge.ids)])
    for cvm_id in bridge.ids:
        await watches.unpin(cvm_id)


async def test_five_slots_are_usable_after_200_watches_came_and_went_while_upstream_stalled(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.upstream.watcher.OPEN_GRACE", 0.5)
    monkeypatch.setattr("bridge.upstream.watcher.END_GRACE", 0.5)
    async with whole(redis_url, cvms=12, settings={"cvms": (), "stream_timeout": 10}) as bridge:
        watches = Watches(bridge.backend)

        async def streams(count: int) -> bool:
            return bool((await bridge.control("GET", "/streams"))["open"] == count)

        await bridge.control("POST", "/faults", json={"route": "stream", "times": None, "action": "hang"})
        await churn(bridge, watches, ROUNDS)
        await bridge.until(lambda: streams(0), "no stream is asked for any more")
        stalled = (await bridge.control("GET", "/streams"))["users"]["demo"]["opened"]
        await bridge.control("DELETE", "/faults")
        for cvm_id in bridge.ids:
            await watches.pin(cvm_id)
        await bridge.until(lambda: streams(5), "five streams")
        counted = await bridge.control("GET", "/streams")
    assert stalled == 5, "none was asked for while upstream might have opened the five before"
    assert (counted["users"]["demo"]["max"], counted["users"]["demo"]["refused"]) == (5, 0)
    assert max(each["max"] for each in counted["cvms"].values()) == 1
