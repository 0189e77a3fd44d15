"""Deliveries that wait in the log, because no dispatcher has queued them, on a real server."""

from __future__ import annotations

from bridge.events import STATE
from bridge.store.connection import Backend
from bridge.store.lanes import Share
from tests.lanes import Bench, bench, endpoint, serve


async def _pending(made: Bench) -> dict[str, int]:
    return {found.id: health.pending for found, health in await made.endpoints.page()}


async def test_what_waits_in_the_log_counts_as_pending_for_those_that_want_it(backend: Backend) -> None:
    made = await bench(backend)
    for known in (endpoint("all", types=()), endpoint("one", cvms=("b",)), endpoint("off", enabled=False)):
        await made.endpoints.create(known)
    assert await _pending(made) == {"all": 0, "off": 0, "one": 0}
    for number in range(250):
        await made.writer.append("b" if number % 5 == 0 else "a")
    await made.writer.append("b", type=STATE)
    await made.endpoints.create(endpoint("newer"))
    await made.writer.append("b")
    assert await _pending(made) == {"all": 252, "newer": 1, "off": 0, "one": 51}
    await made.fill("all", "newer", "one")
    before = await _pending(made)
    assert before["all"] == 252, "as many in lanes as there were in the log"
    assert len(await serve(made)) > 0
    assert set((await _pending(made)).values()) == {0}


async def test_an_event_that_is_queued_for_some_endpoints_counts_once(backend: Backend) -> None:
    made = await bench(backend)
    for name in ("e1", "e2"):
        await made.endpoints.create(endpoint(name))
    await made.writer.append()
    checkpoint = await made.checkpoint()
    entries, _ = await made.lanes.read(checkpoint.id, 10)
    await made.lanes.fill(checkpoint, [Share(entries[0], ["e1"])], checkpoint.id, "e1")
    assert await _pending(made) == {"e1": 1, "e2": 1}
