"""Messages by which front ends wake the leader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from bridge.store.connection import Backend
from bridge.store.feed import subscription


async def wakes(backend: Backend) -> AsyncIterator[None]:
    """Yields when a front end asks for something. Raises StoreUnavailableError when the subscription breaks."""
    async with aclosing(subscription(backend, backend.keys.wake_channel)) as source:
        async for _ in source:
            yield None
