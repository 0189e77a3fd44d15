"""Hints and reads that cross each other, in virtual time: a polled CVM's changes are all recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.config import Settings
from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError
from bridge.store.log import Log
from bridge.store.reference_lookups import ReferenceLookups
from bridge.upstream.client import Reading
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual


class SlowClient(ModelClient):
    """Answers a read with the state of when it was asked, `slow` seconds later."""

    slow = 0.0
    slow_batch = 0.0
    worded: asyncio.Event
    """Set once a slow batch's words stand, which arrive `slow_batch` seconds later."""
    after_batch: Callable[[], None] = staticmethod(lambda: None)

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        slow = self.slow_batch
        answers = await super().batch(ids)
        if slow:
            self.worded.set()
        await asyncio.sleep(slow)
        self.after_batch()
        return answers

    async def read_state(self, ref: str) -> Reading:
        reading = await super().read_state(ref)
        await asyncio.sleep(self.slow)
        return Reading(reading.state, reading.sent_at, self._now.monotonic())


@asynccontextmanager
async def polled(poll_interval: float) -> AsyncIterator[tuple[Cloud, SlowClient, Backend]]:
    cloud, chosen = Cloud(["a", "b"]), Settings(cvms=("a", "b"), poll_interval=poll_interval, max_streams=0)
    async with one_leader(chosen, cloud, SlowClient) as (client, backend, _):
        await asyncio.sleep(3)
        yield cloud, client, backend


async def statuses(backend: Backend) -> list[str]:
    events = [json.loads(event.json) for event in await Log(backend).read("0-0", 100)]
    return [event["data"]["to"] for event in events if event["type"].startswith("cvm.")]


def test_a_change_that_a_hint_showed_and_that_was_taken_back_before_the_next_batch_is_recorded_both_times() -> None:
    async def scenario() -> None:
        async with polled(10) as (cloud, _, backend):
            await asyncio.sleep(12)
            cloud.change("a", "stopped")
            await ReferenceLookups(backend).hint("a")
            await asyncio.sleep(2)
            cloud.change("a", "running")
            await asyncio.sleep(12)
            assert await statuses(backend) == ["running", "running", "stopped", "running"]

    run_virtual(scenario())


def test_a_hint_whose_forgetting_was_not_answered_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    forget = ReferenceLookups.forget_hints

    async def unanswered(lookups: ReferenceLookups, references: tuple[str, ...]) -> None:
        await forget(lookups, references)
        if references:
            raise StoreUnavailableError

    async def scenario() -> None:
        async with polled(600) as (cloud, _, backend):
            monkeypatch.setattr(ReferenceLookups, "forget_hints", unanswered)
            cloud.change("a", "stopped")
            await ReferenceLookups(backend).hint("a")
            await asyncio.sleep(4)
            assert await statuses(backend) == ["running", "running", "stopped"]

    run_virtual(scenario())


def test_a_hint_that_comes_while_a_read_is_under_way_has_it_read_again() -> None:
    async def scenario() -> None:
        async with polled(600) as (cloud, client, backend):
            client.slow = 2.0
            await ReferenceLookups(backend).hint("a")
            await asyncio.sleep(1.5)
            cloud.change("a", "stopped")
            await ReferenceLookups(backend).hint("a")
            await asyncio.sleep(4)
            assert await statuses(backend) == ["running", "running", "stopped"]

    run_virtual(scenario())


def test_a_status_that_a_batch_told_and_its_read_did_not_find_is_seen_when_it_comes_back() -> None:
    async def scenario() -> None:
        async with polled(10) as (cloud, client, backend):
            await asyncio.sleep(6)
            cloud.change("a", "stopped")
            client.after_batch = lambda: cloud.change("a", "running")
            await asyncio.sleep(3)
            client.after_batch = lambda: None
            assert await statuses(backend) == ["running", "running"]
            cloud.change("a", "stopped")
            await asyncio.sleep(11)
            assert await statuses(backend) == ["running", "running", "stopped"]

    run_virtual(scenario())


def test_a_batch_answer_that_is_older_than_the_change_does_not_hide_that_the_change_is_taken_back() -> None:
    async def scenario() -> None:
        async with polled(10) as (cloud, client, backend):
            await asyncio.sleep(12)
            client.slow_batch, client.worded = 5.0, asyncio.Event()
            await client.worded.wait()
            client.slow_batch = 0.0
            cloud.change("a", "stopped")
            await ReferenceLookups(backend).hint("a")
            await asyncio.sleep(7)
            cloud.change("a", "running")
            await asyncio.sleep(12)
            assert await statuses(backend) == ["running", "running", "stopped", "running"]

    run_virtual(scenario())
