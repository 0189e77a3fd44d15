"""A model of Phala Cloud in virtual time that counts: the client's interface without HTTP."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bridge.clock import Clock
from bridge.config import Settings
from bridge.events import parse_state
from bridge.upstream.client import ANSWER_TIMEOUT, PAGE_SIZE, Ended, Listed, ListPage, PhalaClient, Reading, StreamEvent
from bridge.upstream.errors import (
    ForeignNotFoundError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnreachableError,
    UpstreamError,
)
from bridge.upstream.watcher import LATELY_INTERVALS, SETTLING

LIMIT = 5
LATELY = LATELY_INTERVALS * Settings().stream_interval + 0.5
"""Seconds for which a stream that has spoken counts as heard when its client closes it."""

TRIP = 0.05
"""Seconds from a question to its answer."""

SLOW_BATCH = 8.0
"""Seconds that a slow batch takes."""

NOTICED_AFTER = 0.3
"""Seconds for which a stream that its client closed still counts."""

NOTICED_LATE = 5.0
"""The same where upstream finds out only when it writes to the stream."""

ENDED_LATE = 9.0
"""Seconds by which upstream is late in ending a stream of a client that does not read."""


@dataclass(eq=False)
class ModelStream:
    """One stream as upstream counts it."""

    name: str
    ends: asyncio.TimerHandle | None = None
    lost: bool = False
    """Nothing of it arrives any more, in either direction: only its timeout ends it."""
    lost_at: float = -math.inf
    """When a NAT forgot its flow."""
    left: bool = False
    """Its client has closed it, and upstream does not know yet."""
    late: bool = False
    """Upstream takes longer to notice that than any client waits."""


class Cloud:
    """Upstream's state and counts. `broken` lists violations of its limit. `others`: streams of other clients."""

    def __init__(self, names: Sequence[str]) -> None:
        self.status: dict[str, str | None] = dict.fromkeys(names, "running")
        self.changed_at: dict[str, float] = dict.fromkeys(names, 0.0)
        self.streams: list[ModelStream] = []
        self.broken: list[str] = []
        self.others = 0
        self.noticed_after = NOTICED_AFTER
        self.failing: type[UpstreamError] | None = None
        self.unrouted: frozenset[str] = frozenset()
        """A proxy answers 404 to these: "plain" requests, of these only "states" or "lists", "streams"."""
        self.ever_deleted: set[str] = set()
        self.batches = ""
        """How batches are answered: "slow", "halved" (half of the CVMs left out), in other "words", or ("") well."""
        self.ends_at_once = False
        self.cut = 0
        self.cut_unheard = False
        self.answers_lost = False
        self.opened = 0
        self.refused = 0
        """Streams that a proxy answered 404 to."""
        self.silent: set[str] = set()
        """CVMs that batches leave out and whose state cannot be read."""
        self.shown: list[tuple[str, str]] = []
        """CVM and status of each event that a client took from a stream."""
        self.requests: Counter[int] = Counter()
        """Plain requests by the second in which they came."""

    @property
    def open(self) -> list[str]:
        return [stream.name for stream in self.streams]

    @property
    def held(self) -> int:
        """How many streams clients have, whatever upstream counts."""
        return sum(not stream.left for stream in self.streams)

    def change(self, name: str, status: str | None) -> None:
        if status is None:
            self.ever_deleted.add(name)
        if self.status[name] != status:
            self.status[name] = status
            self.changed_at[name] = asyncio.get_running_loop().time()

    def enter(self, name: str, timeout: float) -> ModelStream:
        """Raises RateLimitedError past the limit. Where upstream notices late, the client cannot know the count."""
        now = asyncio.get_running_loop().time()
        known = [stream.name for stream in self.streams if not stream.late]
        if len(self.streams) + self.others >= LIMIT:
            if not self.others and len(known) >= LIMIT:
                self.broken.append(f"{now:.2f}: a sixth stream, of {name} beside {self.open}")
            raise RateLimitedError(status=429)
        if name in known:
            self.broken.append(f"{now:.2f}: a second stream of {name}")
        stream = ModelStream(name)
        stream.ends = asyncio.get_running_loop().call_later(timeout + ENDED_LATE, self._forget, stream)
        self.streams.append(stream)
        self.opened += 1
        return stream

    def leave(self, stream: ModelStream, after: float) -> None:
        """Its client went away (noticed `after` seconds) or upstream itself ended it (0).

        Where the client closes a stream that spoke lately, although a NAT has forgotten it since, nobody could know
        better: that is the case that is not promised (docs/reliability.md), and the model overlooks it.
        """
        if stream.lost and asyncio.get_running_loop().time() > stream.lost_at + LATELY:
            return
        if stream.ends is not None:
            stream.ends.cancel()
        stream.left, stream.late = True, after > SETTLING
        asyncio.get_running_loop().call_later(after, self._forget, stream)

    def lose(self) -> None:
        """A NAT forgets all flows."""
        for stream in self.streams:
            if not stream.lost:
                stream.lost, stream.lost_at = True, asyncio.get_running_loop().time()

    def _forget(self, stream: ModelStream) -> None:
        if stream in self.streams:
            self.streams.remove(stream)


class ModelClient(PhalaClient):
    """One replica's view of the cloud; a frozen replica sends and receives nothing until it is thawed."""

    def __init__(self, cloud: Cloud, clock: Clock, thawed: asyncio.Event) -> None:
        self._cloud = cloud
        self._now = clock
        self._thawed = thawed

    async def aclose(self) -> None:
        return

    async def _reach(self) -> None:
        await self._thawed.wait()
        await asyncio.sleep(TRIP)
        self._cloud.requests[int(self._now.monotonic())] += 1
        await self._thawed.wait()
        self._fail("plain")

    def _fail(self, form: str) -> None:
        if form in self._cloud.unrouted:
            raise ForeignNotFoundError(status=404)
        if self._cloud.failing is not None:
            raise self._cloud.failing(status=429 if self._cloud.failing is RateLimitedError else 500)

    def _raw(self, name: str) -> str:
        if name in self._cloud.silent:
            raise ServerError(status=500)
        status = self._cloud.status.get(name)
        if status is None:
            raise NotFoundError(status=404)
        return f'{{"id":"{name}","status":"{status}"}}'

    async def read_state(self, ref: str) -> Reading:
        sent_at = self._now.monotonic()
        await self._reach()
        self._fail("states")
        return Reading(parse_state(self._raw(ref)), sent_at, self._now.monotonic())

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        await self._reach()
        how = self._cloud.batches
        known = {name: self._cloud.status.get(name) for name in ids if name not in self._cloud.silent}
        told = {
            name: f"{status}!" if how == "words" else status for name, status in known.items() if status is not None
        }
        if how == "slow":
            await asyncio.sleep(SLOW_BATCH)
        left_out = set(list(self._cloud.status)[::2]) if how == "halved" else set()
        return {name: {"status": status} for name, status in told.items() if name not in left_out}

    async def list_page(self, number: int) -> ListPage:
        await self._reach()
        self._fail("lists")
        items = [(name, status) for name, status in self._cloud.status.items() if status is not None]
        shown = items[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
        return ListPage(tuple(self._listed(*each) for each in shown), len(items), -(-len(items) // PAGE_SIZE))

    def _listed(self, name: str, status: str) -> Listed:
        return Listed(vm_uuid=name, name=name, status=status)

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        await asyncio.sleep(TRIP)
        self._cloud.refused += "streams" in self._cloud.unrouted
        self._fail("streams")
        self._raw(ref)
        stream, ends = self._cloud.enter(ref, timeout), self._cloud.ends_at_once
        try:
            if self._cloud.answers_lost:
                stream.lost = True
                await asyncio.sleep(ANSWER_TIMEOUT)
                raise UnreachableError
            await self._thawed.wait()  # upstream has opened it, even if the replica is frozen
            if ends:
                yield no_events()
            else:
                yield self._events(stream, interval, self._now.monotonic() + timeout, self._cloud.cut)
        finally:
            # A frozen process closes nothing: upstream's own timeout does.
            await self._thawed.wait()
            self._cloud.leave(stream, 0.0 if ends else self._cloud.noticed_after)

    async def _events(self, stream: ModelStream, interval: int, until: float, cut: int) -> AsyncIterator[StreamEvent]:
        while self._now.monotonic() < until:
            state = parse_state(self._raw(stream.name))
            yield state
            self._cloud.shown.append((stream.name, state.status))  # and taken
            again = min(self._now.monotonic() + interval, until)
            while (left := again - self._now.monotonic()) > 0:
                await asyncio.sleep(min(1.0, max(left, 0.001)))
                await self._thawed.wait()
                if stream.lost:
                    await asyncio.Event().wait()
                if self._cloud.cut != cut:
                    stream.lost = self._cloud.cut_unheard
                if self._cloud.cut != cut or self._cloud.failing is not None:
                    raise UnreachableError
        yield Ended("timeout")


async def no_events() -> AsyncIterator[StreamEvent]:
    return
    yield
