from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.store.connection import Backend
from bridge.store.watches import Watches
from tests.fakes import fake_backend


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A Redis in which the CVMs "a" and "b" are wanted."""
    made = fake_backend()
    for cvm in ("a", "b"):
        await Watches(made).want(cvm)
    yield made
    await made.close()
