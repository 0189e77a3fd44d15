"""Commands that read at one moment, on a Redis that is full: before Valkey 9 it queues none for a transaction."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions as errors
from redis.asyncio.client import Pipeline

from bridge.store.connection import Backend
from bridge.store.errors import StoreError
from tests import fakes


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """It refuses each transaction."""
    client = fakes.fake_client()
    make = client.pipeline

    def pipeline(transaction: bool = True) -> Pipeline:
        made = make(transaction=transaction)
        if transaction:
            monkeypatch.setattr(made, "execute", refuse)
        return made

    async def refuse(**_: Any) -> None:
        raise errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    monkeypatch.setattr(client, "pipeline", pipeline)
    return Backend(client, "bridge")


async def test_a_full_redis_answers_them_one_after_the_other(full: Backend) -> None:
    await full.client.set("text", "a")
    await full.client.hset("hash", mapping={"b": "c"})
    found = await full.read_together(lambda pipe: (pipe.get("text"), pipe.execute_command("HGETALL", "hash")))
    assert found == ["a", {"b": "c"}]


async def test_an_error_that_is_not_needed_stands_in_its_place(full: Backend) -> None:
    await full.client.set("text", "a")

    def queue(pipe: Any) -> None:
        pipe.get("text")
        pipe.execute_command("HGETALL", "text")

    first, second = await full.read_together(queue, needed=1)
    assert first == "a"
    assert isinstance(second, errors.ResponseError)
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await full.read_together(queue)
