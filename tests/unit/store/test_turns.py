"""Commands to Redis beyond what the client can send at once wait for their turn; none is refused."""

from __future__ import annotations

import asyncio

import pytest

from bridge.store.connection import MOST_CALLS, Backend
from bridge.store.errors import StoreUnavailableError
from tests.virtual import run_virtual


class Counting:
    """A client whose commands take `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.running = self.most = 0

    async def ping(self) -> bool:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        return True


def test_a_thousand_commands_at_once_are_all_answered() -> None:
    async def scenario() -> None:
        client = Counting(0.1)
        backend = Backend(client, "bridge")
        await asyncio.gather(*(backend.ping() for _ in range(1000)))
        assert client.most == MOST_CALLS

    run_virtual(scenario())


def test_a_command_whose_turn_does_not_come_says_what_it_waited_for() -> None:
    async def scenario() -> None:
        backend = Backend(Counting(4.0), "bridge")
        first = [asyncio.create_task(backend.ping()) for _ in range(MOST_CALLS)]
        second = [asyncio.create_task(backend.ping()) for _ in range(MOST_CALLS)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match=r"none of \d+ connections became free within 5 s"):
            await backend.ping()
        await asyncio.gather(*first, *second)
        await backend.ping()  # no turn is lost

    run_virtual(scenario())
