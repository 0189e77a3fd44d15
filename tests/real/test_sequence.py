"""`sequence` has 16 digits wherever an envelope goes, also for entries of a log that began with plain numbers."""

from __future__ import annotations

import json
from typing import Any

from bridge.events import STATE, Draft, cvm_data
from bridge.store.connection import Backend
from bridge.store.deliveries import Deliveries
from bridge.store.endpoints import Endpoints
from bridge.store.leadership import Leadership, Term
from bridge.store.log import Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.snapshots import Snapshot
from tests.bridges import sse
from tests.lanes import endpoint
from tests.real.fronts import NOW, front

CVM = "cvm-1"


def padded(first: int, last: int) -> list[str]:
    return [f"{number:016d}" for number in range(first, last + 1)]


async def write_old_log(backend: Backend, count: int) -> list[str]:
    """`count` events as a release before the padding wrote them; their ids."""
    term = await Leadership(backend).acquire("old", 60.0, "birth")
    assert isinstance(term, Term)
    keys, ids = backend.keys, [f"{1000 + number}-0" for number in range(1, count + 1)]
    data = cvm_data(CVM, None, (None, "running"), "poll", '{"status":"running","sequence":"1"}')
    for number, entry_id in enumerate(ids, 1):
        text = Draft(STATE, CVM, NOW, data).envelope(keys.source, number)
        old = text.replace(f'"sequence":"{number:016d}"', f'"sequence":"{number}"')
        await backend.client.xadd(keys.log, {"event": old, "ran": "1"}, id=entry_id)
    low = {"floor": "1000-0", "floor_sequence": 0}
    await backend.client.hset(keys.meta, mapping={"sequence": count, "last_id": ids[-1], **low})
    await Leadership(backend).resign(term)
    return ids


async def test_a_log_with_plain_numbers_goes_on_without_a_gap(redis_url: str, backend: Backend) -> None:
    old = await write_old_log(backend, 12)  # before a front end looks: to a running one it would be a lost history
    async with front(redis_url) as web:
        await web.lead()
        ids = old + [await web.append(CVM) for _ in range(3)]
        events = f"{web.url}/v1/events"
        replayed = await sse(web.http, events, 14, headers={"Last-Event-ID": ids[0]})
        assert [entry_id for _, entry_id, _ in replayed] == ids[1:]
        assert [data["sequence"] for _, _, data in replayed] == padded(2, 15)
        assert {data["data"]["state"].get("sequence") for _, _, data in replayed[:11]} == {"1"}

        page = (await web.http.get(f"{events}?after=1000-0", headers={"Accept": "application/json"})).json()
        assert [item["sequence"] for item in page["items"]] == padded(1, 15)

        (snapshot,) = await sse(web.http, events, 1)
        assert snapshot[2]["sequence"] == padded(15, 15)[0]
        assert (await web.http.get(f"{web.url}/readyz")).json()["sequence"] == "15"


async def test_trimming_counts_old_and_new_entries_alike(backend: Backend) -> None:
    old = await write_old_log(backend, 8)
    term = await Leadership(backend).acquire("new", 60.0, "birth")
    assert isinstance(term, Term)
    written = WritePosition(term.sequence, term.last_id)
    draft = Draft(STATE, CVM, NOW, cvm_data(CVM, None, (None, "running"), "poll", None))
    snapshot = Snapshot(CVM, None, "running", None, NOW, NOW)
    low_water: list[Any] = []
    for _ in range(6):
        written = await LogWriter(backend, 3).append(term, written, draft, snapshot, ran=False)
        position = await Log(backend).position()
        assert position is not None
        low_water.append((position.low_water_sequence, await backend.client.hget(backend.keys.meta, "floor_sequence")))
    assert low_water == [(number, str(number)) for number in range(6, 12)]
    assert await Log(backend).find(old[-1]) is None


async def test_a_webhook_test_event_has_a_sequence_of_zeros(backend: Backend) -> None:
    await Endpoints(backend).create(endpoint())
    delivery = await Deliveries(backend).get(await Deliveries(backend).test("e", NOW))
    assert delivery is not None
    assert json.loads(delivery.event.json)["sequence"] == "0" * 16
