"""Deliveries of all endpoints in one list, on a real server."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.store.connection import Backend
from bridge.store.deliveries import Deliveries
from bridge.store.delivery_search import DeliveryQuery, DeliverySearch
from bridge.store.errors import StoreError
from tests.lanes import Bench, bench, endpoint, settle


async def listed(backend: Backend, *, limit: int = 3, **query: Any) -> list[tuple[str, str]]:
    """(endpoint, event) over all pages."""
    found, after = [], ""
    while True:
        some, following = await DeliverySearch(backend).page(DeliveryQuery(**query), after=after, limit=limit)
        assert len(some) <= limit
        found += [(each.endpoint_id, each.event.id) for each in some]
        if following is None:
            return found
        after = following


async def filled(backend: Backend, endpoints: int, events: int) -> tuple[Bench, list[str]]:
    made = await bench(backend)
    for number in range(endpoints):
        await made.endpoints.create(endpoint(f"e{number}"))
    ids = [await made.writer.append(f"cvm-{number % 3}") for number in range(events)]
    await made.fill()
    return made, ids


async def test_every_delivery_comes_once_newest_first(backend: Backend) -> None:
    made, ids = await filled(backend, 4, 60)
    for claim in (await made.claim()).claims[:7]:
        await settle(made, claim, "delivered" if claim.endpoint_id == "e1" else "given_up")
    expected = [(f"e{number}", each) for each in ids[::-1] for number in (3, 2, 1, 0)]
    for limit in (1, 7, 1000):
        assert await listed(backend, limit=limit) == expected
    finished = await listed(backend, status="given_up") + await listed(backend, status="delivered")
    assert len(finished) == 7
    assert sorted(finished + await listed(backend, status="pending")) == sorted(expected)


async def test_an_event_and_a_cvm_and_a_time_select(backend: Backend) -> None:
    made, ids = await filled(backend, 3, 9)
    every = [f"e{number}" for number in (2, 1, 0)]
    assert await listed(backend, event=ids[4]) == [(each, ids[4]) for each in every]
    assert await listed(backend, event="1-1") == []
    of_one = [(each, event) for event in ids[7::-3] for each in every]
    assert await listed(backend, cvm="cvm-1", limit=2) == of_one
    assert await listed(backend, cvm="cvm-9") == []
    assert len(await listed(backend, cvm="n")) == 27  # the name in the event
    now = await backend.now_ms()
    assert await listed(backend, since_ms=now + 1000) == []
    assert len(await listed(backend, since_ms=now - 60_000, until_ms=now + 1000)) == 27
    assert await listed(backend, until_ms=now - 60_000) == []
    assert await listed(backend, event=ids[0], until_ms=now - 60_000) == []
    assert await made.endpoints.remove("e1")
    assert await listed(backend, event=ids[4]) == [("e2", ids[4]), ("e0", ids[4])]


async def test_what_is_delivered_while_the_pages_are_read_is_not_missed(backend: Backend) -> None:
    made, ids = await filled(backend, 2, 12)
    search, after, seen = DeliverySearch(backend), "", []
    while True:
        found, following = await search.page(DeliveryQuery(), after=after, limit=4)
        seen += [(each.endpoint_id, each.event.id) for each in found]
        for claim in (await made.claim()).claims:
            await settle(made, claim, "delivered")
        if following is None:
            break
        after = following
    assert seen == [(each, event) for event in ids[::-1] for each in ("e1", "e0")]


async def test_a_page_ends_after_so_many_bytes_and_goes_on(backend: Backend) -> None:
    await filled(backend, 2, 5)
    found, following = await DeliverySearch(backend).page(DeliveryQuery(), most_bytes=1)
    assert len(found) == 1
    rest, end = await DeliverySearch(backend).page(DeliveryQuery(), after=following or "")
    assert (len(rest), end) == (9, None)
    with pytest.raises(ValueError, match="cursor"):
        await DeliverySearch(backend).page(DeliveryQuery(), after="-1")


async def test_damaged_lists_and_deliveries_are_passed_over(backend: Backend) -> None:
    _, ids = await filled(backend, 3, 4)
    await backend.client.delete("{bridge}:webhooks:pending:e1")
    await backend.client.set("{bridge}:webhooks:pending:e1", "odd")
    await backend.client.delete(f"{{bridge}}:webhooks:delivery:e2-{ids[1]}")
    try:
        found = await listed(backend)
    except StoreError:
        pytest.fail("one endpoint's damage is its own")
    assert found == [(each, event) for event in ids[::-1] for each in ("e2", "e0") if (each, event) != ("e2", ids[1])]
    assert (await Deliveries(backend).page("e1"))[0] == []
