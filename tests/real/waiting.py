"""Waiting for what another process or task does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.servers import PATIENCE


async def until(holds: Callable[[], bool]) -> None:
    """Returns once it holds; fails after PATIENCE."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event to set
            await asyncio.sleep(0.005)
