"""The fake log and the log in Redis through the same questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bridge.events import Draft, Event, entry_key
from bridge.store.leadership import Leadership, Term
from bridge.store.log import HIGHEST_ID, Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot
from tests.fakes import fake_backend
from tests.unit.web.streaming.fake_log import FakeLog

Fill = Callable[[int, int], Awaitable[Log]]
"""A log after so many appended events, of which all but the newest so many were trimmed."""


async def _fill_fake(appended: int, kept: int) -> Log:
    log = FakeLog()
    for _ in range(appended):
        log.append("cvm-1")
    log.trim(appended - kept)
    return log


@pytest.fixture(params=["fake", "redis"])
async def fill(request: pytest.FixtureRequest) -> AsyncIterator[Fill]:
    if request.param == "fake":
        yield _fill_fake
        return
    backend = fake_backend()

    async def in_redis(appended: int, kept: int) -> Log:
        term = await Leadership(backend).acquire("one", 10, "b", "0-0")
        assert isinstance(term, Term)
        written = WritePosition(term.sequence, term.last_id)
        snapshot = Snapshot("cvm-1", '{"status":"running"}', "running", "n", "t", "t")
        writer = LogWriter(backend, max(kept, 1))
        for _ in range(appended):
            draft = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", "{}")
            written = await writer.append(term, written, draft, snapshot, ran=False)
        return Log(backend)

    yield in_redis
    await backend.close()


def sequences(events: list[Event]) -> list[int]:
    return [event.sequence for event in events]


async def test_an_empty_log_stands_at_its_beginning(fill: Fill) -> None:
    log = await fill(0, 0)
    position = await log.position()
    assert position is not None
    assert (position.sequence, position.low_water_sequence, position.trimmed) == (0, 0, False)
    assert position.id == position.low_water_mark
    assert (await log.read("0-0", 10), await log.latest(10)) == ([], [])


async def test_events_are_read_after_an_id_oldest_first_and_so_many(fill: Fill) -> None:
    log = await fill(5, 5)
    events = await log.read("0-0", 10)
    assert sequences(events) == [1, 2, 3, 4, 5]
    assert sequences(await log.read(events[1].id, 2)) == [3, 4]
    assert sequences(await log.read(events[-1].id, 10)) == []
    assert sequences(await log.read(HIGHEST_ID, 10)) == []
    assert sequences(await log.latest(2)) == [4, 5]
    assert [event.id for event in events] == sorted((event.id for event in events), key=entry_key)


async def test_a_trimmed_log_tells_the_newest_entry_that_is_gone(fill: Fill) -> None:
    whole = await fill(2, 2)
    second = (await whole.latest(1))[0]
    assert (await whole.position()) is not None
    log = await fill(6, 2)
    position, left = await log.position(), await log.latest(10)
    assert position is not None
    assert (position.sequence, position.id) == (left[-1].sequence, left[-1].id)
    assert position.trimmed
    assert position.low_water_sequence == left[0].sequence - 1
    assert entry_key(second.id) <= entry_key(position.low_water_mark) < entry_key(left[0].id)


async def test_an_event_is_found_by_its_id_alone(fill: Fill) -> None:
    log = await fill(3, 3)
    middle = (await log.latest(2))[0]
    assert await log.find(middle.id) == middle
    assert await log.find(middle.id.partition("-")[0] + "-999") is None
    with pytest.raises(ValueError, match="not a log id"):
        await log.find("no id")
