"""An app that becomes known later is in Redis without an event, whatever else is written at that moment."""

from __future__ import annotations

import asyncio

import pytest

from bridge.store.leadership import Leadership
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from tests.backups import Backup
from tests.fakes import fake_backend
from tests.unit.upstream.recording import Process, statuses


@pytest.mark.parametrize("lost", [False, True])
async def test_an_app_that_is_named_at_any_moment_of_a_write_is_in_redis_after_the_next_one(
    monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    """`lost`: Redis has lost events that nobody remembers, so that all snapshots are written."""
    monkeypatch.setattr("bridge.upstream.journal.RECENT", 0)
    for turns in range(10):
        await _named_after(turns, lost=lost)


async def _named_after(turns: int, *, lost: bool) -> None:
    backend = fake_backend()
    await Watches(backend).want("a")
    process = Process(backend)
    await process.lead()
    await process.see("a", "running")
    await process.write()
    backup = await Backup.of(backend)
    await process.see("a", "stopped")
    await process.write()
    if lost:
        await backup.restore(backend)
        process.recorder.compare(process.recorder.position, *await Leadership(backend).renew(process.term, 10, 3.3))
    before = await statuses(backend)
    writing = asyncio.create_task(process.write())
    for _ in range(turns):
        await asyncio.sleep(0)
    process.recorder.name_app(process.watch("a"), "app")
    await writing
    await process.write()
    snapshot = (await Snapshots(backend).all())["a"]
    assert (snapshot.status, snapshot.app_id) == ("stopped", "app")
    assert await statuses(backend) == before
    await backend.close()
