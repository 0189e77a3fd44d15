"""All that is sealed gets the first key, beside changes of other processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest.mock import patch

import fakeredis
import pytest

from bridge.sealing import Sealer
from bridge.store.connection import Backend
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import Endpoints
from bridge.store.errors import UnopenedError
from bridge.store.key_check import KeyCheck
from bridge.store.key_rotation import Rotation, rotate, unopened
from bridge.store.sealing_key import sealed_texts
from tests.fakes import fake_backend
from tests.unit.store.test_key_check import FITS, LACKS, NEW, OLD, SEALED, WRONG, Process


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = fake_backend(fakeredis.FakeServer())
    yield backend
    await backend.close()


@asynccontextmanager
async def _before(owner: type, method: str, act: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Once, `act` comes in just before the method's own work."""
    whole, acted = getattr(owner, method), False

    async def late(self: object, *given: object) -> object:
        nonlocal acted
        if not acted:
            acted = True
            await act()
        return await whole(self, *given)

    with patch.object(owner, method, late):
        yield


async def test_after_a_rotation_the_old_key_may_leave(backend: Backend) -> None:
    await Process(backend, OLD).makes("a")
    await Process(backend, NEW, OLD).makes("b")
    both = Sealer([NEW, OLD])
    assert await rotate(backend, both, dry_run=True) == Rotation(2, 0, 1, 0)
    assert await Process(backend, NEW).finds() == LACKS
    assert await rotate(backend, both) == Rotation(2, 1, 0, 0)
    assert await rotate(backend, both) == Rotation(2, 0, 0, 0)
    assert (await Process(backend, NEW).finds(), await Process(backend, OLD).finds()) == (FITS, WRONG)
    for endpoint in (await Endpoints(backend).all()).endpoints.values():
        assert [Sealer([NEW]).open(text) for text in sealed_texts(endpoint)] == SEALED


async def test_a_rotation_without_the_old_key_is_refused_and_changes_nothing(backend: Backend) -> None:
    await Process(backend, OLD).makes("a")
    with pytest.raises(UnopenedError):
        await rotate(backend, Sealer([NEW]))
    assert await rotate(backend, Sealer([NEW]), dry_run=True) == Rotation(1, 0, 1, 1)
    assert await Process(backend, OLD).finds() == FITS


async def test_a_change_in_the_middle_of_a_rotation_is_kept_and_sealed_anew(backend: Backend) -> None:
    old = Process(backend, OLD, NEW)
    await old.makes("a")

    def change(known: Endpoint) -> Endpoint:
        return replace(known, url_sealed=old.sealer.seal("http://new.test/"))

    async with _before(Endpoints, "change", lambda: old.endpoints.change("a", change)):
        assert await rotate(backend, Sealer([NEW, OLD])) == Rotation(1, 1, 0, 0)
    (endpoint,) = (await Endpoints(backend).all()).endpoints.values()
    assert Sealer([NEW]).open(endpoint.url_sealed) == "http://new.test/"


async def test_what_is_sealed_with_an_old_key_at_the_last_moment_is_sealed_anew_too(backend: Backend) -> None:
    old = Process(backend, OLD, NEW)
    await old.makes("a")
    async with _before(KeyCheck, "retire", lambda: old.makes("b")):
        assert await rotate(backend, Sealer([NEW, OLD])) == Rotation(2, 2, 0, 0)
    assert await Process(backend, NEW).finds() == FITS
    await old.makes("c")  # its check value has gone: it registers again
    assert await Process(backend, NEW).finds() == LACKS


async def test_what_no_key_opens_is_counted_and_found(backend: Backend) -> None:
    await Process(backend, OLD).makes("a")
    await Endpoints(backend).create(Endpoint("b", "odd"))
    assert await rotate(backend, Sealer([NEW, OLD])) == Rotation(2, 1, 1, 1)
    assert await unopened(Endpoints(backend), Sealer([NEW])) == ["b"]
    assert await unopened(Endpoints(backend), None) == ["a", "b"]
