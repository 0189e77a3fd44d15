"""The leader's wake-up calls from the front ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from bridge.store.connection import Backend
from bridge.store.feed import subscription


async def wakes(backend: Backend) -> AsyncIterator[None]:
    """Yields when a front end wants something. Raises StoreUnavailableError when the subscription breaks."""
    async with aclosing(subscription(backend, backend.keys.wake_channel)) as source:
        async for _ in source:
            yield None
