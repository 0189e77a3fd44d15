"""A watcher that is cancelled while it already ends: its slot is let go, and later the whole term ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.config import Settings
from bridge.upstream.client import StreamEvent
from bridge.upstream.watcher import _listen
from tests.virtual import VirtualClock, run_virtual


async def _slow_to_end() -> AsyncGenerator[StreamEvent, None]:
    """As a connection that says goodbye over TLS."""
    try:
        await asyncio.Event().wait()
        yield  # type: ignore[misc]
    finally:
        await asyncio.sleep(1)


async def _watch() -> None:
    clock = VirtualClock()
    context: Any = SimpleNamespace(settings=Settings(), clock=clock)
    tracked: Any = SimpleNamespace(cvm_id="a", seen=SimpleNamespace(events=0))
    stream: Any = SimpleNamespace(opened_at=clock.monotonic(), heard_at=clock.monotonic())
    async with aclosing(_slow_to_end()) as events:
        await _listen(context, tracked, events, stream)


async def _cancelled_twice() -> None:
    watcher = asyncio.create_task(_watch())
    for _ in range(3):
        await asyncio.sleep(0.1)
        watcher.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watcher


def test_a_second_cancellation_waits_for_the_end_of_the_stream_too() -> None:
    run_virtual(_cancelled_twice())
