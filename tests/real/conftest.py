"""What tests on a real Redis share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from bridge.store.connection import Backend, connect
from tests import posting


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[Backend]:
    """On the shared server, emptied."""
    made = connect(redis_url, "bridge")
    yield made
    await made.close()


@pytest.fixture
def certified() -> posting.Certified:
    return posting.certified()


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What opens sockets by the loop's own means is tested on both loops, which differ in them."""
    if item.path.name.startswith("test_transport"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
