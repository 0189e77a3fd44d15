"""Pages of the log: how much one holds, how much is read for it, and how many are made at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bridge.events import Draft, Event
from bridge.store.leadership import Leadership, Term
from bridge.store.log import READ_BYTES, Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot
from bridge.web.api.log_pages import MOST_LOOKED_AT, LogPages
from bridge.web.http.page_turns import PAGE_BYTES, PAGES_AT_ONCE, PageTurns
from bridge.web.http.problems import ProblemError, ProblemType
from tests.fakes import fake_backend
from tests.unit.web.streaming.fake_log import FakeLog
from tests.virtual import run_virtual


def every(event: Event) -> bool:
    return True


async def all_pages(pages: LogPages, wants: Callable[[Event], bool] = every, limit: int = 100) -> list[list[str]]:
    found: list[list[str]] = []
    following: str | None = None
    while not found or following is not None:
        items, following = await pages.read(following, wants, limit, named="after")
        found.append(items)
    return found


def joined(found: list[list[str]]) -> list[str]:
    return [item for items in found for item in items]


class CountingLog(FakeLog):
    """Counts what is read, and how many reads run at the same moment."""

    def __init__(self) -> None:
        super().__init__()
        self.read_events = self.running = self.most = 0

    async def read(self, after: str, count: int) -> list[Event]:
        self.running += 1
        self.most = max(self.most, self.running)
        found = await super().read(after, count)
        self.read_events += len(found)
        self.running -= 1
        return found


def filled(count: int) -> CountingLog:
    log = CountingLog()
    for number in range(count):
        log.append(f"cvm-{number % 10}")
    return log


def test_a_page_reads_what_it_needs() -> None:
    async def scenario() -> None:
        log = filled(1000)
        items, following = await LogPages(log, PageTurns()).read(None, every, 1, named="after")
        assert (len(items), following) == (1, log.whole[0].id)
        assert log.read_events == 2

    run_virtual(scenario())


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_pages_have_every_wanted_event_once_and_the_last_one_has_no_next(limit: int) -> None:
    async def scenario() -> None:
        log = filled(250)
        pages = LogPages(log, PageTurns())
        assert joined(await all_pages(pages, limit=limit)) == [event.json for event in log.whole]
        wanted = await all_pages(pages, lambda event: event.cvm_id == "cvm-3", limit)
        assert joined(wanted) == [event.json for event in log.whole if event.cvm_id == "cvm-3"]
        assert all(len(items) <= limit for items in wanted)

    run_virtual(scenario())


def test_a_filtered_page_looks_at_so_many_events_and_goes_on_from_its_next() -> None:
    async def scenario() -> None:
        log = filled(MOST_LOOKED_AT + 1)
        pages = LogPages(log, PageTurns())
        items, following = await pages.read(None, lambda event: event is log.whole[-1], 10, named="after")
        assert (items, following) == ([], log.whole[-2].id)
        items, following = await pages.read(following, lambda event: event is log.whole[-1], 10, named="after")
        assert (items, following) == ([log.whole[-1].json], None)

    run_virtual(scenario())


def test_so_many_pages_are_made_at_once_and_one_whose_turn_does_not_come_is_503() -> None:
    async def scenario() -> None:
        log = filled(3)
        log.takes = 3.0
        pages = LogPages(log, PageTurns())
        asking = [pages.read(None, every, 1, named="after") for _ in range(20)]
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, ProblemError)]
        assert {each.type for each in refused} == {ProblemType.UNAVAILABLE}
        assert 0 < len(refused) < 20
        assert log.most == PAGES_AT_ONCE

    run_virtual(scenario())


def test_a_hole_behind_the_cursor_is_410_and_one_further_on_ends_the_page() -> None:
    async def scenario() -> None:
        log = filled(6)
        del log.events[3]
        pages, cursor = LogPages(log, PageTurns()), log.whole[2].id
        items, following = await pages.read(log.whole[0].id, every, 10, named="after")
        assert (items, following) == ([event.json for event in log.whole[1:3]], cursor)
        with pytest.raises(ProblemError) as refused:
            await pages.read(cursor, every, 10, named="after")
        assert refused.value.type is ProblemType.HISTORY_LOST

    run_virtual(scenario())


async def large_log(*sizes: int) -> Log:
    backend = fake_backend()
    term = await Leadership(backend).acquire("one", 10, "b", "0-0")
    assert isinstance(term, Term)
    written, snapshot = WritePosition(term.sequence, term.last_id), Snapshot("a", "{}", "running", "n", "t", "t")
    for size in sizes:
        draft = Draft("cvm.state", "a", "2026-11-24T16:00:00.000Z", f'{{"filling":"{"x" * size}"}}')
        written = await LogWriter(backend, 100).append(term, written, draft, snapshot, ran=False)
    return Log(backend)


async def test_a_page_of_large_states_ends_early_and_loses_none() -> None:
    log = await large_log(*[PAGE_BYTES // 3] * 10)
    found = await all_pages(LogPages(log, PageTurns()))
    assert joined(found) == [event.json for event in await log.read("0-0", 100)]
    assert max(sum(map(len, items)) for items in found) < PAGE_BYTES * 1.4


async def test_a_read_takes_so_many_bytes_and_one_event_at_least() -> None:
    log = await large_log(10, READ_BYTES * 2, 10, READ_BYTES * 2, 10)
    first = await log.read_some("0-0", 100)
    assert [event.sequence for event in first] == [1, 2]
    assert [event.sequence for event in await log.read_some(first[-1].id, 100)] == [3, 4]
    assert [event.sequence for event in await log.read_some(first[-1].id, 1)] == [3]


async def test_entries_that_the_bridge_did_not_write_are_not_the_end_of_the_log() -> None:
    log = await large_log(10)
    first, client = (await log.read("0-0", 1))[0], log._backend.client
    for number in range(30):
        await client.xadd(log._backend.keys.log, {"event": "rubbish", "n": number} if number % 2 else {"n": number})
    text = first.json.replace(f'"id":"{first.id}",', "").replace('"sequence":"0000000000000001"', '"sequence":"2"')
    await client.xadd(log._backend.keys.log, {"event": text})
    assert [event.sequence for event in await log.read_some(first.id, 7)] == [2]
    assert await log.read_some((await log.read_some(first.id, 7))[0].id, 7) == []
