"""Time as a parameter: the wall clock, the monotonic clock and sleep, so that tests never really sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

T = TypeVar("T")

SHORTEST_SLEEP = 0.01
"""Seconds: ten thousand shorter sleeps would together take much longer than they should."""


class Clock(Protocol):
    """What the bridge asks of time. All values are seconds."""

    def time(self) -> float:
        """Seconds since the Unix epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; meaningful as differences within one process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def rfc3339(seconds: float) -> str:
    """A Unix time as the product writes it everywhere: UTC, milliseconds, `Z`."""
    moment = datetime.fromtimestamp(round(seconds * 1000) / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def unix(text: str | None) -> float:
    """Unix seconds of an RFC 3339 time; 0 if there is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except (ValueError, OverflowError):
        return 0.0


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits at most `seconds` (None: for ever) for the event; True where it is set then, False where time ran out."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return event.is_set()


async def evenly(items: Iterable[T], seconds: float, clock: Clock) -> AsyncIterator[T]:
    """The items in their order, spread over `seconds`, so that the clients do not come back all at once."""
    present, began = list(items), clock.monotonic()
    for number, item in enumerate(present):
        ahead = began + seconds * number / len(present) - clock.monotonic()
        if ahead > SHORTEST_SLEEP:
            await clock.sleep(ahead)
        yield item
