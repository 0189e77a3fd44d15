"""Cursors and times of clients, looked up in the log."""

from __future__ import annotations

from bridge.events import Event
from bridge.web.streaming.cursors import Cursors
from bridge.web.streaming.subscriber import Start
from tests.unit.web.streaming.fake_log import FakeLog
from tests.virtual import run_virtual


def test_a_cursor_is_found_or_gets_a_reset() -> None:
    async def scenario() -> None:
        log = FakeLog()
        for _ in range(5):
            log.append()
        log.low_water_mark, log.low_water_sequence, log.events = "1002-0", 2, log.events[2:]
        assert await Cursors(log).find("1002-0") == Start(2, "1002-0")
        assert await Cursors(log).find("1004-0") == Start(4, "1004-0")
        assert (await Cursors(log).locate("1001-0")).reset == "history_lost"
        for bad in ("9999-0", "1003-7", "x", "1004", "", "-"):
            assert (await Cursors(log).locate(bad)).reset == "unknown_cursor"

    run_virtual(scenario())


def test_since_replays_the_later_events_and_resets_only_if_some_were_trimmed() -> None:
    async def scenario() -> None:
        log = FakeLog()
        for _ in range(5):
            log.append()
        assert await Cursors(log).locate_time(0) == Start(0, "1000-0")
        assert await Cursors(log).locate_time(1003) == Start(2, f"1002-{2**64 - 1}")
        assert await Cursors(log).locate_time(5000) == Start(5, "1005-0")
        log.trimmed = True
        assert await Cursors(log).locate_time(0) == Start(reset="history_lost")

    run_virtual(scenario())


class TrimmedBetweenLog(FakeLog):
    """Its first event is trimmed while a time is looked up."""

    async def read(self, after: str, count: int) -> list[Event]:
        self.low_water_mark, self.low_water_sequence, self.trimmed = self.events[0].id, 1, True
        del self.events[0]
        return await super().read(after, count)


def test_a_time_whose_events_are_trimmed_meanwhile_gets_a_reset() -> None:
    async def scenario() -> None:
        log = TrimmedBetweenLog()
        for _ in range(3):
            log.append()
        assert (await Cursors(log).find(1001)) == Start(reset="history_lost")

    run_virtual(scenario())
