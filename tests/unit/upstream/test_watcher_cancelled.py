"""A watcher that is cancelled while it already ends: its slot is let go, and later the whole term ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bridge.config import Settings
from bridge.upstream.client import PhalaClient, StreamEvent
from bridge.upstream.slots import Slot
from bridge.upstream.watcher import _listen, _release
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


class _SlowToClose(httpx.AsyncByteStream):
    """A body that the client has read enough of."""

    closed = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        yield b"event: complete\ndata: {}\n\n"
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        await asyncio.sleep(1)
        self.closed = True


async def _cancelled_while_it_closes() -> None:
    body = _SlowToClose()
    answer = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=body)
    client = PhalaClient("http://up", "key", clock=VirtualClock(), transport=httpx.MockTransport(lambda _: answer))

    async def follow() -> None:
        async with client.stream("a", target="deleted", interval=5, timeout=120) as events:
            await anext(events)

    watcher = asyncio.create_task(follow())
    for _ in range(3):
        await asyncio.sleep(0.1)
        watcher.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watcher
    assert body.closed, "upstream still has a stream whose slot is free"


def test_a_stream_that_is_being_closed_is_closed_whatever_is_cancelled() -> None:
    run_virtual(_cancelled_while_it_closes())


async def _cancelled_while_its_slot_is_freed() -> None:
    clock, freed = VirtualClock(), list[int]()

    async def free(_: object, index: int, settling: float) -> None:
        await asyncio.sleep(1)
        freed.append(index)

    context: Any = SimpleNamespace(term=None, clock=clock, redis_slots=SimpleNamespace(free=free))
    slot = Slot(3)
    slot.take("a", ("me", 1), clock.monotonic(), clock.monotonic() + 100)
    watcher = asyncio.create_task(_release(context, slot, "ordinary"))
    for _ in range(3):
        await asyncio.sleep(0.1)
        watcher.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watcher
    assert freed == [3]


def test_a_slot_that_is_being_freed_is_freed_whatever_is_cancelled() -> None:
    run_virtual(_cancelled_while_its_slot_is_freed())
