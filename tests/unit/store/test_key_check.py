"""Which keys open what is sealed in Redis: check values, and what is sealed itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import fakeredis
import pytest
from pydantic import SecretStr

from bridge.sealing import Sealer, new_key
from bridge.store.connection import Backend
from bridge.store.endpoint_record import Endpoint, SealedSecret
from bridge.store.endpoints import Endpoints
from bridge.store.errors import UnopenedError
from bridge.store.key_check import Fit, KeyCheck
from bridge.store.sealing_key import sealed_texts
from tests.fakes import fake_backend

OLD, NEW = SecretStr(new_key()), SecretStr(new_key())
FITS, LACKS, WRONG = "fits", "lacks one", "opens nothing"

SEALED = ["http://e.test/", "y", "whsec_geheim", "whsk_geheim"]
"""What is sealed in the endpoints of a `Process`."""


class Process:
    """What one process with these keys does to Redis."""

    def __init__(self, backend: Backend, *keys: SecretStr) -> None:
        self.sealer = Sealer(keys)
        self.check = KeyCheck(backend, self.sealer)
        self.endpoints = Endpoints(backend, key=self.check)

    def draft(self, name: str) -> Endpoint:
        seal = self.sealer.seal
        return Endpoint(
            name,
            seal("http://e.test/"),
            headers_sealed={"x": seal("y")},
            secrets_sealed=(SealedSecret(seal("whsec_geheim")),),
            keys_sealed=(SealedSecret(seal("whsk_geheim")),),
        )

    async def makes(self, name: str) -> None:
        await self.endpoints.create(self.draft(name))

    async def finds(self) -> str:
        fit = await self.check.look()
        return WRONG if fit.wrong else LACKS if fit.trouble else FITS


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = fake_backend(fakeredis.FakeServer())
    yield backend
    await backend.close()


async def test_where_nothing_is_sealed_every_key_fits(backend: Backend) -> None:
    assert await Process(backend, OLD).finds() == FITS
    assert await Process(backend, NEW).finds() == FITS


async def test_the_first_key_that_seals_keeps_others_from_sealing(backend: Backend) -> None:
    right, other = Process(backend, OLD), Process(backend, NEW)
    await right.makes("a")
    assert await right.finds() == FITS
    assert await other.finds() == WRONG
    with pytest.raises(UnopenedError):
        await other.makes("b")
    with pytest.raises(UnopenedError):
        await other.endpoints.change("a", lambda known: known)
    assert list((await right.endpoints.all()).endpoints) == ["a"]


async def test_of_two_that_seal_first_at_the_same_moment_one_is_refused(backend: Backend) -> None:
    some = Process(backend, OLD), Process(backend, NEW)
    done = await asyncio.gather(*(each.makes(f"e{n}") for n, each in enumerate(some)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["NoneType", "UnopenedError"]


async def test_after_a_flush_any_key_may_be_the_first(backend: Backend) -> None:
    old, new = Process(backend, OLD), Process(backend, NEW)
    await old.makes("a")
    await backend.client.flushall()
    await new.makes("b")
    assert (await new.finds(), await old.finds()) == (FITS, WRONG)


async def test_check_values_of_deleted_endpoints_keep_nobody_out(backend: Backend) -> None:
    await Process(backend, OLD).makes("a")
    await Process(backend, OLD).endpoints.remove("a")
    new = Process(backend, NEW)
    await new.makes("b")
    assert (await new.finds(), await Process(backend, OLD).finds()) == (FITS, WRONG)


@pytest.mark.parametrize("damage", ["gone", "foreign", "odd", "of another type"])
async def test_endpoints_decide_where_check_values_are_damaged(backend: Backend, damage: str) -> None:
    await Process(backend, OLD).makes("a")
    await _damage(backend, damage)
    assert await Process(backend, NEW).finds() == WRONG
    with pytest.raises(UnopenedError):
        await Process(backend, NEW).makes("b")
    assert await Process(backend, OLD).finds() == FITS
    checks = await backend.client.hgetall(f"{backend.keys.webhooks}:keys")
    assert [Sealer([OLD]).opener(value) for value in checks.values()] == [Sealer([OLD]).first]


async def _damage(backend: Backend, how: str) -> None:
    client, key = backend.client, f"{backend.keys.webhooks}:keys"
    if how in ("gone", "of another type"):
        await client.delete(key)
    if how == "of another type":
        await client.set(key, "x")
    elif how != "gone":
        await client.hset(key, "x", Sealer([NEW if how == "odd" else SecretStr(new_key())]).seal("y"))


async def test_a_key_that_is_put_in_front_is_needed_from_its_first_seal_on(backend: Backend) -> None:
    await Process(backend, OLD).makes("a")
    both = Process(backend, NEW, OLD)
    assert (await both.finds(), await Process(backend, OLD).finds()) == (FITS, FITS)
    await both.makes("b")
    assert await both.finds() == FITS
    assert await Process(backend, OLD, NEW).finds() == FITS
    for one in (OLD, NEW):
        assert await Process(backend, one).finds() == LACKS


async def test_every_change_seals_all_of_an_endpoint_with_the_first_key(backend: Backend) -> None:
    await Process(backend, OLD).makes("a")
    await Process(backend, NEW, OLD).endpoints.change("a", lambda known: known)
    (endpoint,) = (await Process(backend, NEW).endpoints.all()).endpoints.values()
    assert [Sealer([NEW]).open(text) for text in sealed_texts(endpoint)] == SEALED


async def test_endpoints_of_a_version_without_check_values_get_theirs(backend: Backend) -> None:
    for name, key in (("a", OLD), ("b", NEW)):
        await Endpoints(backend).create(Process(backend, key).draft(name))
    assert await Process(backend, SecretStr(new_key())).finds() == WRONG
    assert await Process(backend, NEW, OLD).finds() == FITS
    assert await Process(backend, NEW).finds() == LACKS


async def test_one_endpoint_of_such_a_version_that_nobody_opens_stops_nothing(backend: Backend) -> None:
    for name, key in (("a", OLD), ("b", SecretStr(new_key()))):
        await Endpoints(backend).create(Process(backend, key).draft(name))
    assert await Process(backend, OLD).finds() == FITS
    assert await Process(backend, NEW).finds() == WRONG


async def test_a_damaged_endpoint_beside_good_check_values_stops_nothing(backend: Backend) -> None:
    await Process(backend, OLD).makes("a")
    await Endpoints(backend).create(Endpoint("b", "odd"))
    assert await Process(backend, OLD).finds() == FITS


def test_trouble_counts_the_endpoints() -> None:
    assert Fit(3).trouble == ""
    assert "1 of 3" in Fit(3, 1).trouble
    assert not Fit(3, 1).wrong
    assert Fit(3, 3).wrong
