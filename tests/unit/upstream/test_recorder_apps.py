"""An app that becomes known later is in Redis without an event, whatever else is written at that moment."""

from __future__ import annotations

import asyncio

import pytest

from bridge.clock import SystemClock
from bridge.events import DROPPED, FRESH, STALE, STATE, TRANSITION, parse_state
from bridge.store.leadership import Leadership
from bridge.store.log import Log
from bridge.store.snapshots import Snapshots
from bridge.store.watches import Watches
from bridge.upstream.tracked import Observation
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
    process.recorder.identify(process.watch("a"), "app", None)
    await writing
    await process.write()
    snapshot = (await Snapshots(backend).all())["a"]
    assert (snapshot.status, snapshot.app_id) == ("stopped", "app")
    assert await statuses(backend) == before
    await backend.close()


def named(status: str, at: float) -> Observation:
    state = parse_state(f'{{"id":"a","name":"web-1","app_id":"app_1","status":"{status}"}}')
    return Observation(state=state, by="poll", sent_at=at, made_at=at)


async def test_every_event_tells_the_app_and_the_name_of_its_cvm() -> None:
    backend = fake_backend()
    await Watches(backend).want("a")
    process = Process(backend)
    await process.lead()
    tracked = process.watch("a")
    await process.recorder.record(tracked, named("running", 1))
    await process.recorder.mark_stale(tracked, "unreachable")
    await process.recorder.record(tracked, named("stopped", 2))
    await process.recorder.record(tracked, Observation(state=None, by="poll", sent_at=3, made_at=3))
    await process.write()
    await process.recorder.drop(tracked, round(SystemClock().time() * 1000) + 60_000)
    events = await Log(backend).read("0-0", 99)
    assert [event.type for event in events] == [STATE, STALE, FRESH, TRANSITION, TRANSITION, DROPPED]
    assert {(event.app_id, event.name) for event in events} == {("app_1", "web-1")}
    await backend.close()
