"""One simulated Phala Cloud: its CVMs, streams, faults, counters, settings and time."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bridge.clock import Clock
from bridge.simulator.faults import Faults, RouteName
from bridge.simulator.stream_quota import LIMIT, StreamQuota
from bridge.simulator.world import Change, World

#: Requests that are kept with their details; a test of a minute makes fewer.
RECENT = 5000

#: The user to whom every key belongs unless keys are set.
DEMO_USER = "demo"


class Settings(BaseModel):
    """Settings of a test, see docs/simulator.md. `time_scale`: real seconds per simulated second."""

    model_config = ConfigDict(extra="forbid")

    frozen: bool = False
    instant: bool = False
    time_scale: float = Field(default=1.0, gt=0, le=1000)
    limit: int = Field(default=LIMIT, ge=0)
    late_notice: float = Field(default=0.0, ge=0)
    refuse_targets: list[str] = []
    line_end: Literal["LF", "CRLF", "CR"] = "LF"
    one_byte: bool = False
    batch_missing: list[str] = []
    batch_words: dict[str, str] = {}
    operations: bool = True
    keys: dict[str, str] | None = None


@dataclass
class RecordedRequest:
    """One request on `/api/v1`; `at` is simulated time, `status` is None until it is answered."""

    at: float
    route: RouteName
    ref: str | None
    cvm: str | None
    user: str | None
    query: str
    status: int | None = None


@dataclass
class Counters:
    """Requests and answers per route, and the last requests in detail."""

    requests: Counter[str] = field(default_factory=Counter)
    responses: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    cvms: Counter[str] = field(default_factory=Counter)
    recent: deque[RecordedRequest] = field(default_factory=lambda: deque(maxlen=RECENT))

    def count_request(self, record: RecordedRequest) -> None:
        self.requests[record.route] += 1
        if record.cvm is not None:
            self.cvms[record.cvm] += 1
        self.recent.append(record)

    def count_answer(self, record: RecordedRequest, status: int) -> None:
        record.status = status
        self.responses[record.route][status] += 1

    def as_json(self) -> dict[str, Any]:
        recent = [asdict(record) for record in self.recent]
        return {"requests": self.requests, "responses": self.responses, "recent": recent}


class Simulator:
    """The parts of a simulator. One event loop owns it; no method waits."""

    def __init__(self, world: World, settings: Settings, clock: Clock) -> None:
        self.world = world
        self.clock = clock
        self.quota = StreamQuota(clock.monotonic)
        self.faults = Faults()
        self.counters = Counters()
        self.closing = asyncio.Event()
        self.listeners: list[Callable[[Change], None]] = []
        self._base = (clock.monotonic(), world.now)
        self.settings = settings
        self.apply(settings)

    def now(self) -> float:
        """Simulated Unix seconds."""
        real, simulated = self._base
        return simulated + (self.clock.monotonic() - real) / self.settings.time_scale

    def apply(self, settings: Settings) -> None:
        """The settings hold from now on."""
        self._base = (self.clock.monotonic(), self.now())
        self.settings = settings
        self.world.freeze(settings.frozen)
        self.quota.limit = settings.limit
        self.quota.late_notice = settings.late_notice

    def user(self, key: str | None) -> str | None:
        """The user of a key; None if the key is not valid."""
        if self.settings.keys is None:
            return DEMO_USER if key else None
        return self.settings.keys.get(key or "")

    def advance(self) -> None:
        """Lets everything happen that is due."""
        self.announce(self.world.advance(self.now()))

    def announce(self, changes: list[Change], *, push: bool = False) -> None:
        """Calls the listeners; streams send pushed changes at once."""
        for change in changes:
            for listener in self.listeners:
                listener(change)
        if changes and (push or self.settings.instant):
            self.quota.push(change.cvm.vm_uuid for change in changes)

    def close(self) -> None:
        """Ends open streams and stalled answers; idempotent."""
        self.closing.set()
        for stream in self.quota.streams():
            stream.awake.set()

    def reset_counters(self) -> None:
        self.counters = Counters()
        self.quota.reset_counts()
