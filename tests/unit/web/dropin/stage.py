"""Watchers on a clock and a feed of the test's own, and sinks that remember what came when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from bridge.events import TRANSITION, Draft, Event, cvm_data, watch_data
from bridge.store.errors import StoreUnavailableError
from bridge.store.snapshots import Snapshot, Snapshots
from bridge.web.dropin.watchers import Watcher, Watchers
from bridge.web.streaming.demand import WatchDemand
from tests.unit.web.streaming.sinks import PlainSink
from tests.virtual import VirtualClock


class FakeSnapshots(Snapshots):
    """The state hash as a dict."""

    def __init__(self) -> None:
        self.known: dict[str, Snapshot] = {}
        self.reads = 0
        self.away = False

    async def get(self, cvm_ids: Sequence[str]) -> dict[str, Snapshot]:
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailableError("away")
        self.reads += 1
        return {cvm_id: self.known[cvm_id] for cvm_id in cvm_ids if cvm_id in self.known}


class FakeSink(PlainSink):
    """What a client got: (second, event, data)."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.text = b""
        self.times: list[float] = []
        self.closed = self.was_cut = False
        self.stuck = 0

    def send_all(self, frames: object) -> None:
        raise AssertionError("not for the drop-in")

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.text += data
        self.times += [round(self._clock.monotonic(), 1)] * data.count(b"\n\n")

    def backlog(self) -> int:
        return self.stuck

    async def drained(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def cut(self) -> None:
        self.was_cut = self.closed = True

    @property
    def events(self) -> list[tuple[float, str, dict[str, Any]]]:
        blocks = self.text.decode().split("\n\n")[:-1]
        heads = [block.split("\n") for block in blocks]
        assert all(len(lines) == 2 for lines in heads)
        return [
            (at, lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: ")))
            for at, lines in zip(self.times, heads, strict=True)
        ]

    @property
    def names(self) -> list[tuple[float, str]]:
        return [(at, name) for at, name, _ in self.events]


class Stage:
    """Watchers on virtual time, whose leader the test is."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.snapshots = FakeSnapshots()
        self.demand = WatchDemand()
        self.led = True
        self.watchers = Watchers(self.snapshots, self.demand, self.clock, led=lambda: self.led, buffer=1000)
        self.sequence = 0
        self._timer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Stage:
        self._timer = asyncio.create_task(self.watchers.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._timer is not None
        self._timer.cancel()
        await asyncio.wait([self._timer])

    def snapshot(self, status: str = "running", *, stale: str | None = None, cvm_id: str = "a") -> None:
        self.sequence += 1
        raw = f'{{"status":"{status}"}}'
        self.snapshots.known[cvm_id] = Snapshot(
            cvm_id, raw, status, None, None, "2026-11-24T16:00:00Z", f"{self.sequence}-0", stale is None, stale
        )

    def _event(self, kind: str, data: str, cvm_id: str) -> None:
        self.sequence += 1
        text = Draft(kind, cvm_id, "2026-11-24T16:00:00Z", data).envelope("/bridge/x", self.sequence)
        self.watchers.on_event(Event.from_log(f"{self.sequence}-0", text))

    def becomes(self, status: str | None, cvm_id: str = "a") -> None:
        raw = None if status is None else f'{{"status":"{status}","n":1.10}}'
        self._event(TRANSITION, cvm_data(cvm_id, None, ("x", status or "deleted"), "poll", raw), cvm_id)

    def publish(self, kind: str, reason: str | None = None, cvm_id: str = "a") -> None:
        self._event(kind, watch_data(cvm_id, None, reason), cvm_id)

    async def watch(
        self, target: str = "stopped", interval: float = 5, timeout: float = 300, cvm_id: str = "a"
    ) -> tuple[Watcher, FakeSink]:
        watcher = Watcher("t", cvm_id, target, interval, timeout, self.clock.monotonic())
        self.watchers.enter(watcher)
        await self.watchers.load(cvm_id)
        sink = FakeSink(self.clock)
        self.watchers.begin(watcher, sink)
        return watcher, sink
