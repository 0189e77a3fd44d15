"""A process that is ending waits for a Redis that hangs once, not once for each command."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError
from tests.virtual import run_virtual


class Hanging:
    """A client whose commands take `seconds`."""

    seconds = 1000.0

    async def ping(self) -> Any:
        await asyncio.sleep(self.seconds)
        return True


async def waited(backend: Backend) -> float:
    """Seconds until a command is given up."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailableError):
        await backend.ping()
    return round(asyncio.get_running_loop().time() - began, 3)


def test_commands_under_way_are_given_up_too_and_those_that_follow_at_once() -> None:
    async def scenario() -> None:
        backend = Backend(Hanging(), "bridge")
        assert await waited(backend) == 5.0
        early = asyncio.create_task(waited(backend))
        await asyncio.sleep(1)
        backend.hurry()
        assert await waited(backend) == 2.0
        assert await early == 3.0
        assert [await waited(backend) for _ in range(3)] == [0.1, 0.1, 0.1]

    run_virtual(scenario())


def test_a_redis_that_answers_again_gets_its_time_again() -> None:
    async def scenario() -> None:
        client = Hanging()
        backend = Backend(client, "bridge")
        backend.hurry()
        assert [await waited(backend), await waited(backend)] == [2.0, 0.1]
        client.seconds = 0.05
        await backend.ping()
        client.seconds = 1.0
        await backend.ping()

    run_virtual(scenario())


def test_a_command_that_has_just_run_out_of_time_is_left_alone() -> None:
    async def scenario() -> None:
        backend = Backend(Hanging(), "bridge")
        early = asyncio.create_task(waited(backend))
        asyncio.get_running_loop().call_later(5.0, backend.hurry)
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(5.0, backend.hurry)
        assert await early == 5.0

    run_virtual(scenario())
