"""Streams whose end upstream does not hear: it counts them until their timeout, and its own limit is lifted here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.bridges import Whole, whole

CVMS = 12


@asynccontextmanager
async def unnoticed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Whole]:
    """A bridge whose slots have a deadline after 12 s, on an upstream that counts what it would have open."""
    monkeypatch.setattr("bridge.upstream.watcher.OPEN_GRACE", 1.0)
    monkeypatch.setattr("bridge.upstream.watcher.END_GRACE", 1.0)
    monkeypatch.setattr("bridge.upstream.client.ANSWER_TIMEOUT", 0.5)
    async with whole(redis_url, cvms=CVMS, time_scale=1.0, settings={"stream_timeout": 10}) as bridge:
        await bridge.control("PATCH", "/settings", json={"limit": 100, "late_notice": 3600})
        yield bridge


async def opened(bridge: Whole) -> int:
    """Streams that upstream opened so far; at no moment more than five, nor two for one CVM."""
    counted = await bridge.control("GET", "/streams")
    assert counted["users"].get("demo", {}).get("max", 0) <= 5
    assert max((each["max"] for each in counted["cvms"].values()), default=0) <= 1
    return int(counted["users"].get("demo", {}).get("opened", 0))


async def all_become(bridge: Whole, status: str) -> None:
    for cvm_id in bridge.ids:
        await bridge.patch(cvm_id, status=status)

    async def recorded() -> bool:
        return {(await bridge.cvm(cvm_id))["status"] for cvm_id in bridge.ids} == {status}

    await bridge.until(recorded, f"all are {status}")


async def streams_again(bridge: Whole, more: int) -> None:
    before = await opened(bridge)

    async def again() -> bool:
        return await opened(bridge) >= before + more

    await bridge.until(again, f"{more} further streams")


async def test_streams_whose_answers_are_lost_count_until_their_deadline(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unnoticed(redis_url, monkeypatch) as bridge:
        await bridge.until_seen(CVMS)
        await bridge.control("POST", "/faults", json={"route": "stream", "times": None, "action": "hang"})
        await bridge.control("POST", "/streams/cut", json={"how": "end"})
        await all_become(bridge, "stopped")
        await streams_again(bridge, 5)
        await bridge.control("DELETE", "/faults")
        await streams_again(bridge, 5)
        await all_become(bridge, "running")


async def test_streams_that_a_nat_forgot_count_until_their_deadline_and_their_cvms_are_polled(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.upstream.watcher.SILENT_INTERVALS", 0.04)
    async with unnoticed(redis_url, monkeypatch) as bridge:
        await streams_again(bridge, 5)
        await bridge.control("POST", "/streams/silence", json={})
        await all_become(bridge, "stopped")
        polling = (await bridge.http.get(f"{bridge.url}/v1/slots")).json()
        await all_become(bridge, "starting")
        await streams_again(bridge, 5)
        ends = [why for why in polling["polling"].values() if "quarantined" in why]
    assert len(ends) <= 5
