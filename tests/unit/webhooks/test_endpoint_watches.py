from __future__ import annotations

from collections.abc import Mapping

from bridge.events import DELETED
from bridge.store.connection import Backend
from bridge.store.endpoint_record import Endpoint
from bridge.store.endpoints import EndpointSet
from bridge.store.snapshots import Snapshot
from bridge.store.watches import Watches
from bridge.webhooks.dispatcher import announce_named_cvms
from tests.fakes import fake_backend
from tests.lanes import endpoint


def endpoint_set(*endpoints: Endpoint) -> EndpointSet:
    return EndpointSet(1, {each.id: each for each in endpoints})


async def watched(backend: Backend) -> tuple[list[str], Mapping[str, int]]:
    watches = Watches(backend)
    return [watch.cvm_id for watch in await watches.list()], (await watches.survey()).demand


async def test_what_endpoints_name_is_watched_and_counts_as_asked_for() -> None:
    backend = fake_backend()
    named = endpoint_set(endpoint("one", cvms=("a", "b")), endpoint("two", cvms=("a",)), endpoint("all"))
    for _ in range(2):  # a second dispatcher announces the same: it counts once
        await announce_named_cvms(backend, named, 45.0)
    assert await watched(backend) == (["a", "b"], {"a": 2, "b": 1})


async def test_what_its_owner_may_not_see_an_endpoint_does_not_ask_for() -> None:
    backend = fake_backend()
    await announce_named_cvms(backend, endpoint_set(endpoint(cvms=("a", "b"), reach=("b", "c"))), 45.0)
    assert await watched(backend) == (["b"], {"b": 1})


async def test_a_disabled_endpoint_asks_for_nothing() -> None:
    backend = fake_backend()
    await announce_named_cvms(backend, endpoint_set(endpoint(cvms=("a",), enabled=False)), 45.0)
    assert await watched(backend) == ([], {})


async def test_a_cvm_that_is_gone_is_not_asked_for_again() -> None:
    backend = fake_backend()
    gone = Snapshot("a", None, DELETED, "n", "t", "t")
    await backend.client.hset(backend.keys.state, "a", gone.to_json())
    await announce_named_cvms(backend, endpoint_set(endpoint(cvms=("a", "b"))), 45.0)
    assert await watched(backend) == (["b"], {"b": 1})
