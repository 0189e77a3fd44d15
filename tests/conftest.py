"""What every test may ask for; and the check that no task outlives its test."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis.utils

from bridge.config import variables
from tests import authorities, commands, servers
from tests.servers import Guarded, RealServer, cluster, guarded
from tests.virtual import assert_no_task_left

# An example that takes long on a busy machine is no failure.
hypothesis.settings.register_profile("bridge", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("bridge")


def pytest_configure() -> None:
    """The main thread has no event loop between tests.

    Before Python 3.14, `asyncio.get_event_loop()` makes one where nobody set any: pytest-asyncio asks so, and what it
    gets is never closed.
    """
    asyncio.set_event_loop(None)
    authorities.read_once()
    redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)  # asked for each connection


LONGEST = (
    *("test_unheard_ends.py", "test_fuzz_openapi.py", "test_snippets.py", "test_takeover.py", "test_frozen_leader.py"),
    *("test_fuzz_bytes.py", "test_not_found.py", "test_redis_replicas.py", "test_dispatcher_killed.py"),
)
"""They wait for ten seconds and more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin first: none of them is still at it when all others have ended."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """No collection of garbage looks through what was imported."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    binary = servers.server_binary()
    return f"server: {servers.server_version(binary)} ({binary})"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("BRIDGE_") or name in variables().values():
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_command_outlives_its_test() -> Iterator[None]:
    """A failed test may leave commands behind: they would write into the Redis of the tests after it."""
    before = list(commands.running)
    yield
    for command in [each for each in commands.running if each not in before]:
        command.process.kill()
        command.ends()


@pytest.fixture
async def _task_check() -> AsyncIterator[None]:
    known: set[asyncio.Task[object] | None] = set(asyncio.all_tasks())
    yield
    await assert_no_task_left(known | {asyncio.current_task()})


@pytest.fixture(autouse=True)
def _no_task_outlives_its_test(request: pytest.FixtureRequest) -> None:
    """Autouse, so first made and last ended: fixtures have ended their own tasks by then."""
    test = getattr(request.node, "obj", None)
    if inspect.iscoroutinefunction(test):
        request.getfixturevalue("_task_check")


@pytest.fixture(scope="session")
def server_binary() -> Path:
    """The server to run on: BRIDGE_TEST_SERVER, else the one that comes along."""
    return servers.server_binary()


@pytest.fixture(scope="session")
def redis_server(server_binary: Path) -> Iterator[RealServer]:
    """A standalone server on a unix socket, shared by all tests: none may kill it."""
    with RealServer(server_binary) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RealServer) -> str:
    """The shared server, emptied."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def own_server(server_binary: Path) -> Iterator[RealServer]:
    """A server of the test's own with a port and an append-only file: to be killed, restarted and frozen."""
    with RealServer(server_binary, tcp=True, append_only=True) as server:
        yield server


@pytest.fixture
def redis_cluster(server_binary: Path) -> Iterator[RealServer]:
    """A cluster of one node; `tests.servers.cluster_url` gives its URL."""
    with cluster(server_binary) as server:
        yield server


@pytest.fixture
def redis_guarded(server_binary: Path) -> Iterator[Guarded]:
    """A primary, a replica and a sentinel; killing the primary fails over in about a second."""
    with guarded(server_binary) as trio:
        yield trio
