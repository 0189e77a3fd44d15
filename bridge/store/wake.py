"""The leader's wake-up calls from the front ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bridge.store.connection import Backend
from bridge.store.feed import subscription


async def wakes(backend: Backend) -> AsyncIterator[None]:
    """Yields when a front end wants something. Raises StoreUnavailableError when the subscription breaks."""
    async for _ in subscription(backend, backend.keys.wake_channel):
        yield None
