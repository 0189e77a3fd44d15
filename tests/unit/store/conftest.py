"""A fake Redis whose time the test holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from bridge.store.connection import Backend
from tests.fakes import HandClock, fake_backend, redis_time


@pytest.fixture
def clock() -> Iterator[HandClock]:
    held = HandClock()
    with redis_time(held):
        yield held


@pytest.fixture
async def backend(clock: HandClock) -> AsyncIterator[Backend]:
    made = fake_backend()
    yield made
    await made.close()
