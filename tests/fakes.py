"""A Redis inside the process whose clock the test holds: for what depends on time, not on a real server's ways."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from unittest.mock import patch

import fakeredis

from bridge.store.connection import Backend
from tests.quick_redis import QuickRedis


class WallClock(Protocol):
    def time(self) -> float: ...


@dataclass
class HandClock:
    """A wall clock that stands still until it is set."""

    now: float = 1_795_536_000.0

    def time(self) -> float:
        return self.now

    @property
    def ms(self) -> int:
        return round(self.now * 1000)


@contextmanager
def redis_time(clock: WallClock) -> Iterator[None]:
    """While it lasts, TIME and generated stream ids of every fake server follow `clock`.

    Expiry (`EX`) does not.
    """
    with patch("fakeredis.commands_mixins.server_mixin.time", clock), patch("fakeredis.model._stream.time", clock):
        yield


def fake_client(server: fakeredis.FakeServer | None = None) -> fakeredis.FakeAsyncRedis:
    """As `connect` makes a real one: with a socket timeout, redis-py swallows cancellations on CPython 3.11."""
    server = server or fakeredis.FakeServer()
    return QuickRedis(server=server, decode_responses=True, encoding_errors="replace", socket_timeout=None)


def fake_backend(server: fakeredis.FakeServer | None = None, namespace: str = "bridge") -> Backend:
    """A backend on `server`, or on an empty one of its own; pass one server to give several processes one Redis."""
    return Backend(fake_client(server), namespace)


class CountedCalls(Backend):
    """A backend on an empty server of its own that counts round trips."""

    def __init__(self) -> None:
        super().__init__(fake_client(), "bridge")
        self.calls = 0

    async def call(self, command: Awaitable[Any]) -> Any:
        self.calls += 1
        return await super().call(command)
