"""Pages of JSON: how large one may become, and how many are made at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.web.http.problems import unavailable

PAGE_BYTES = 1 << 20
"""A page ends with the item that reaches this size, and the client continues from `next`: a thousand states of the
largest size would be a gigabyte."""

PAGES_AT_ONCE = 2
"""What is read for a page is several times its size for a moment, and keeps the event loop from its subscribers."""

PATIENCE = 10.0
"""Seconds that a page waits for its turn."""


class PageTurns:
    """All routes with pages of large items share one; more pages than `at_once` wait, in order."""

    def __init__(self, at_once: int = PAGES_AT_ONCE) -> None:
        self._turns = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Raises ProblemError 503 if the turn does not come."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turns.acquire()
        except TimeoutError:
            raise unavailable("too many pages are being read at the moment") from None
        try:
            yield
        finally:
            self._turns.release()
