"""What tests on a real Redis share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop
from playwright.async_api import Browser

from bridge.store.connection import Backend, connect
from tests import posting
from tests.browsers import chromium, connected
from tests.real import webhook_api


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[Backend]:
    """On the shared server, emptied."""
    made = connect(redis_url, "bridge")
    yield made
    await made.close()


@pytest.fixture
async def api(redis_url: str) -> AsyncIterator[webhook_api.Api]:
    """A front end for the webhook routes."""
    async with webhook_api.front(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def browser_address() -> Iterator[str]:
    with chromium() as address:
        yield address


@pytest.fixture
async def browser(browser_address: str) -> AsyncIterator[Browser]:
    async with connected(browser_address) as made:
        yield made


@pytest.fixture
def certified() -> posting.Certified:
    return posting.certified()


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What opens sockets by the loop's own means is tested on both loops, which differ in them."""
    if item.path.name.startswith("test_transport"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
