"""The versions of what runs, in Redis."""

from __future__ import annotations

import asyncio

import pytest

from bridge.store import versions
from bridge.store.connection import Backend
from bridge.store.errors import StoreUnavailableError
from bridge.store.versions import SEEN_SECONDS, read_versions, tell_version
from tests.fakes import fake_backend
from tests.virtual import VirtualClock, run_virtual


async def test_each_role_and_version_is_read_once_and_forgotten_after_a_minute() -> None:
    backend = fake_backend()
    for role, version in (("web", "1.1"), ("upstream", "1.0"), ("web", "1.1")):
        await tell_version(backend, role, version)
    assert await read_versions(backend) == [("upstream", "1.0"), ("web", "1.1")]
    past = await backend.now_ms() - SEEN_SECONDS * 1000 - 1
    await backend.client.zadd(backend.keys.versions, {"upstream 1.0": past})
    assert await read_versions(backend) == [("web", "1.1")]
    await tell_version(backend, "web", "1.1")
    assert await backend.client.zcard(backend.keys.versions) == 1
    await backend.close()


async def test_what_no_bridge_wrote_there_gives_way() -> None:
    backend = fake_backend()
    await backend.client.set(backend.keys.versions, "odd")
    await tell_version(backend, "web", "1.1")
    assert await read_versions(backend) == [("web", "1.1")]
    await backend.close()


def test_it_is_told_again_also_after_a_redis_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def tell(backend: Backend, role: str, version: str) -> None:
        told.append(f"{role} {version}")
        if len(told) == 1:
            raise StoreUnavailableError

    async def scenario() -> None:
        backend, clock = fake_backend(), VirtualClock()
        task = asyncio.create_task(versions.keep_version_told(backend, "web", "1.1", clock))
        await clock.sleep(45)
        task.cancel()
        await backend.close()

    monkeypatch.setattr(versions, "tell_version", tell)
    run_virtual(scenario())
    assert told == ["web 1.1"] * 3
