"""The log in memory, for tests of the hub; `test_fake_log.py` holds it to what the log in Redis answers."""

from __future__ import annotations

import asyncio

from bridge.events import Draft, Event, dumps, entry_key
from bridge.store.errors import StoreUnavailableError
from bridge.store.log import Log, Position
from bridge.store.snapshots import Snapshot


class FakeLog(Log):
    """A log in a list; what is appended may or may not be published. It can be trimmed, lost, replaced or unreachable.

    `whole` also has the trimmed events. Ids grow across all logs. `takes`: seconds that an answer takes before and
    after its moment.
    """

    def __init__(self) -> None:
        self.clock = 1000
        self.made, self.failing = True, False
        self.takes: float | None = None
        self.begin()

    def begin(self) -> None:
        self.log_id = f"log {self.clock}"
        self.whole: list[Event] = []
        self.events: list[Event] = []
        self.low_water_mark, self.low_water_sequence, self.trimmed = f"{self.clock}-0", 0, False
        self.clock += 1

    def append(
        self, cvm_id: str = "a", kind: str = "cvm.state", app_id: str | None = None, name: str | None = None
    ) -> Event:
        self.made = True
        data = dumps({"app_id": app_id, "name": name})
        text = Draft(kind, cvm_id, "t", data).envelope("/bridge/x", self.at().sequence + 1)
        event = Event.from_log(f"{self.clock}-0", text)
        self.clock += 1
        self.whole.append(event)
        self.events.append(event)
        return event

    def trim(self, count: int) -> None:
        if gone := self.events[: min(count, len(self.events) - 1)]:
            self.low_water_mark, self.low_water_sequence, self.trimmed = gone[-1].id, gone[-1].sequence, True
            del self.events[: len(gone)]

    def lose(self, count: int) -> None:
        """The newest events, as where a replica without them was promoted."""
        count = min(count, len(self.events))
        if count:
            del self.events[-count:], self.whole[-count:]

    def at(self) -> Position:
        last = self.events[-1] if self.events else None
        at = (last.sequence, last.id) if last else (self.low_water_sequence, self.low_water_mark)
        return Position(self.log_id, *at, self.low_water_mark, self.low_water_sequence, self.trimmed)

    async def _wait(self) -> None:
        if self.takes is not None:
            await asyncio.sleep(self.takes)

    async def _answer(self) -> None:
        await self._wait()
        if self.failing:
            raise StoreUnavailableError("away")

    async def position(self) -> Position | None:
        await self._answer()
        answer = self.at() if self.made else None
        await self._wait()
        return answer

    async def read(self, after: str, count: int) -> list[Event]:
        await self._answer()
        answer = [event for event in self.events if entry_key(event.id) > entry_key(after)][:count]
        await asyncio.sleep(self.takes or 0)
        return answer

    async def read_some(self, after: str, count: int) -> list[Event]:
        return await self.read(after, count)

    async def latest(self, count: int) -> list[Event]:
        await self._answer()
        return self.events[-count:]

    async def find(self, entry_id: str) -> Event | None:
        await self._answer()
        return next((event for event in self.events if entry_key(event.id) == entry_key(entry_id)), None)

    async def snapshot(self) -> tuple[Position | None, dict[str, Snapshot]]:
        answer = await self.position()
        return answer, self.states() if answer else {}

    def states(self) -> dict[str, Snapshot]:
        """The snapshots that belong to the position."""
        return {}
