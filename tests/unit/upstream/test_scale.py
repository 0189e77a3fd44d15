"""Hundreds of watched CVMs over minutes of virtual time; `benchmarks/hour.py` does it with 1 000 for an hour."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.hour import live
from bridge.config import Settings
from bridge.store.snapshots import Snapshots
from tests import quick_redis
from tests.fakes import fake_backend
from tests.unit.upstream.leaders import one_leader
from tests.unit.upstream.model import Cloud, ModelClient
from tests.virtual import run_virtual

QUIET = 60.0
"""Seconds in which no CVM changes."""


def test_nothing_grows_and_polls_come_evenly() -> None:
    # More than can be read before an unconfirmed state becomes stale.
    *_, early, late = live(cvms=700, minutes=3, segment=1)
    assert late.streams == 5
    assert late.tasks <= early.tasks + 5
    assert late.objects < early.objects + 1000  # what was imported does not count, where it is frozen
    # A batch of 100 every 3.3 s, two reads for each change that it shows, two sweeps a second, the list.
    assert late.requests_a_second < 5
    assert late.most_in_a_second <= 16


def test_a_new_leader_of_hundreds_finds_what_changed_within_a_poll_and_does_not_read_all_of_them() -> None:
    run_virtual(_takeover())


async def _takeover() -> None:
    cloud, backend = Cloud([f"cvm-{number:03}" for number in range(300)]), fake_backend()
    for seconds in (90, 12):
        async with one_leader(Settings(cvms=("*",)), cloud, ModelClient, backend):
            await asyncio.sleep(seconds)
        statuses = {cvm_id: each.status for cvm_id, each in (await Snapshots(backend).all()).items()}
        assert statuses == cloud.status
        for name in ("cvm-007", "cvm-070", "cvm-270"):
            cloud.change(name, "stopped")
        asked = sum(cloud.requests.values())
        cloud.requests.clear()
    await backend.close()
    assert asked < 60


def test_hundreds_of_idle_cvms_cost_redis_little(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    ask = quick_redis.asked

    def counted(connection: Any, args: Sequence[Any]) -> Any:
        sent.append(sum(len(str(each)) for each in args))
        return ask(connection, args)

    monkeypatch.setattr(quick_redis, "asked", counted)
    run_virtual(_idle(sent))
    # Whole snapshots for each confirmation, or notes on each polled CVM, would be tens of kilobytes a second.
    assert len(sent) < 11 * QUIET
    assert sum(sent) < 2_000 * QUIET


async def _idle(sent: list[int]) -> None:
    """`sent` then has the bytes of each command, of which some write, in QUIET seconds."""
    cloud = Cloud([f"cvm-{number:03}" for number in range(300)])
    async with one_leader(Settings(cvms=("*",)), cloud, ModelClient):
        await asyncio.sleep(90)
        sent.clear()
        await asyncio.sleep(QUIET)
        kept = list(sent)
    sent[:] = kept
