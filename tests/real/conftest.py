"""What tests on a real Redis share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.store.connection import Backend, connect


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[Backend]:
    """On the shared server, emptied."""
    made = connect(redis_url, "bridge")
    yield made
    await made.close()
