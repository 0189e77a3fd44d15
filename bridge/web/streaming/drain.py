"""How a front end ends what is open: evenly over time, so that the clients do not come back all at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from bridge.clock import Clock

T = TypeVar("T")

SHORTEST_SLEEP = 0.01
"""Seconds: ten thousand shorter sleeps would together take much longer than they should."""


async def evenly(items: Iterable[T], seconds: float, clock: Clock) -> AsyncIterator[T]:
    """The items in their order, spread over `seconds`."""
    present, began = list(items), clock.monotonic()
    for number, item in enumerate(present):
        ahead = began + seconds * number / len(present) - clock.monotonic()
        if ahead > SHORTEST_SLEEP:
            await clock.sleep(ahead)
        yield item
