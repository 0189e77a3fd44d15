"""Redis's time in a process whose own clock may be wrong: what processes write for each other is told by one clock."""

from __future__ import annotations

import math

from prometheus_client import Gauge

from bridge.clock import Clock
from bridge.store.connection import Backend
from bridge.store.errors import StoreError

SKEW = Gauge(
    "bridge_clock_skew_seconds",
    "How far this machine's clock is ahead of Redis's; negative: behind",
    multiprocess_mode="livemostrecent",
)
"""Times in events, snapshots and answers are Redis's, so no skew spoils them; it is told since it may spoil others."""

ASK_EVERY = 10.0
"""Seconds between two questions. Clocks drift by less than a millisecond meanwhile; one that is set is noticed."""

ASK_AGAIN = 1.0


class ServerClock:
    """`time` is the Redis server's as far as it is known, else this machine's; monotonic time and sleep are its own.

    It is never ahead of the server: an event's `time` is no later than its id, so that `since=` finds it.
    """

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._ahead: float | None = None
        """The server's time minus the own monotonic time."""

    def time(self) -> float:
        if self._ahead is None:
            return self._own.time()
        return math.floor((self._ahead + self._own.monotonic()) * 1000) / 1000  # as the server counts them

    def monotonic(self) -> float:
        return self._own.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._own.sleep(seconds)

    def observe(self, server_time: float, sent_at: float, received_at: float) -> None:
        """The server answered this time (seconds) to a question sent and answered at these moments (monotonic).

        What is known stands while the answer allows it, so that time does not jitter with the network.
        """
        earliest, latest = server_time - received_at, server_time - sent_at
        self._ahead = earliest if self._ahead is None else min(max(self._ahead, earliest), latest)

    @property
    def skew(self) -> float:
        """Seconds by which this machine's clock is ahead."""
        return self._own.time() - self.time()

    async def ask(self, backend: Backend) -> None:
        """Raises StoreError."""
        sent_at = self._own.monotonic()
        now = await backend.now_ms()
        self.observe(now / 1000, sent_at, self._own.monotonic())

    async def follow(self, backend: Backend) -> None:
        """Never returns; keeps the time and the metric right."""
        while True:
            try:
                await self.ask(backend)
            except StoreError:
                await self._own.sleep(ASK_AGAIN)
                continue
            SKEW.set(self.skew)
            await self._own.sleep(ASK_EVERY)
