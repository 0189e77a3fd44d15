"""A model of Phala Cloud in virtual time that counts: the client's interface without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bridge.events import parse_state
from bridge.upstream.client import Ended, Listed, PhalaClient, Reading, StateSeen, StreamEvent
from bridge.upstream.errors import NotFoundError, RateLimitedError, ServerError, UnreachableError, UpstreamError
from tests.virtual import VirtualClock


class Cloud:
    """What upstream knows and counts. `limit`: streams per user; `others`: of these, how many are somebody else's."""

    def __init__(self, names: Sequence[str]) -> None:
        self.status: dict[str, str | None] = dict.fromkeys(names, "running")
        self.open: list[str] = []
        self.most = 0
        self.twice = False
        self.others = 0
        self.failing: type[UpstreamError] | None = None
        self.cut = 0

    def opened(self, name: str) -> None:
        if len(self.open) + self.others >= 5:
            if not self.others:
                self.most = 6
            raise RateLimitedError(status=429)
        self.twice = self.twice or name in self.open
        self.open.append(name)
        self.most = max(self.most, len(self.open))


class ModelClient(PhalaClient):
    """One replica's view of the cloud; a frozen replica's calls and answers wait until it is thawed."""

    def __init__(self, cloud: Cloud, clock: VirtualClock, thawed: asyncio.Event) -> None:
        self._cloud = cloud
        self._now = clock
        self._thawed = thawed

    async def aclose(self) -> None:
        return

    async def _reach(self) -> None:
        await self._thawed.wait()
        await asyncio.sleep(0.05)
        await self._thawed.wait()
        if self._cloud.failing is not None:
            raise self._cloud.failing(status=500)

    def _raw(self, name: str) -> str:
        status = self._cloud.status.get(name)
        if status is None:
            raise NotFoundError(status=404)
        return f'{{"id":"{name}","status":"{status}"}}'

    async def read_state(self, ref: str) -> Reading:
        sent_at = self._now.monotonic()
        await self._reach()
        return Reading(parse_state(self._raw(ref)), sent_at, self._now.monotonic())

    async def batch(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        await self._reach()
        known = {name: self._cloud.status.get(name) for name in ids}
        return {name: {"status": status} for name, status in known.items() if status is not None}

    async def list_cvms(self) -> list[Listed]:
        await self._reach()
        return [Listed(name, None, name) for name, status in self._cloud.status.items() if status is not None]

    @asynccontextmanager
    async def stream(
        self, ref: str, *, target: str, interval: int, timeout: int
    ) -> AsyncIterator[AsyncIterator[StreamEvent]]:
        await self._reach()
        self._raw(ref)
        self._cloud.opened(ref)
        ends = asyncio.get_running_loop().call_later(timeout, self._close, ref)
        try:
            yield self._events(ref, interval, self._now.monotonic() + timeout, self._cloud.cut)
        finally:
            # A frozen process closes nothing: upstream's own timeout does.
            if not ends.cancelled() and ends.when() > asyncio.get_running_loop().time():
                ends.cancel()
                self._close(ref)

    def _close(self, name: str) -> None:
        if name in self._cloud.open:
            self._cloud.open.remove(name)

    async def _events(self, name: str, interval: int, until: float, cut: int) -> AsyncIterator[StreamEvent]:
        while self._now.monotonic() < until:
            yield StateSeen(parse_state(self._raw(name)))
            await asyncio.sleep(min(interval, max(0.001, until - self._now.monotonic())))
            await self._thawed.wait()
            if self._cloud.cut != cut or self._cloud.failing is ServerError:
                raise UnreachableError
        yield Ended("timeout")
