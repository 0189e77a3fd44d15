"""Odd data in private keys on real servers, whose Lua, streams and types differ from the fake's."""

from __future__ import annotations

import asyncio

import pytest

from bridge.events import Draft
from bridge.store.connection import Backend
from bridge.store.errors import StoreError
from bridge.store.leadership import Leadership, Term
from bridge.store.log import HIGHEST_ID, Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.notices import Notices, PhalaNotice
from bridge.store.repair import mend
from bridge.store.slots import MOST_SLOTS, Slots
from bridge.store.snapshots import Snapshot

DRAFT = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", '{"cvm_id":"cvm-1"}')
SNAPSHOT = Snapshot("cvm-1", '{"status":"running"}', "running", "web", None, None)


async def lead(backend: Backend, holder: str) -> Term:
    async with asyncio.timeout(20):
        while not isinstance(term := await Leadership(backend).acquire(holder, 1, f"log-{holder}"), Term):  # noqa: ASYNC110
            await asyncio.sleep(term)
    await mend(backend, term)
    return term


async def append(backend: Backend, term: Term, written: WritePosition) -> WritePosition:
    return await LogWriter(backend, 100).append(term, written, DRAFT, SNAPSHOT, ran=False)


async def log_of(backend: Backend, events: int) -> tuple[Term, WritePosition]:
    term = await lead(backend, "one")
    written = WritePosition(term.sequence, term.last_id)
    for _ in range(events):
        written = await append(backend, term, written)
    return term, written


async def test_a_log_that_a_strangers_entry_blocks_is_rebuilt_with_its_ids_and_numbers(backend: Backend) -> None:
    old, written = await log_of(backend, 3)
    client, keys = backend.client, backend.keys
    for _ in range(450):
        await client.xadd(keys.log, {"x": "y"})
    await client.xadd(keys.log, {"x": "y"}, id=HIGHEST_ID)
    await client.xgroup_create(keys.log, "queue", HIGHEST_ID)
    before = await Log(backend).read("0-0", 1000)
    with pytest.raises(StoreError):
        await append(backend, old, written)
    await Leadership(backend).resign(old)
    term = await lead(backend, "two")
    assert (term.log_id, term.sequence, term.last_id) == (old.log_id, 3, written.last_id)
    after = await append(backend, term, written)
    assert (await Log(backend).read("0-0", 1000))[:3] == before
    assert [event.sequence for event in await Log(backend).latest(9)] == [1, 2, 3, 4]
    assert [entry for entry, _ in (await client.xreadgroup("queue", "one", {keys.log: ">"}))[0][1]] == [after.last_id]


async def test_notices_that_a_strangers_entry_blocks_are_left_again(backend: Backend) -> None:
    notices, (first, second) = (
        Notices(backend),
        map(PhalaNotice.of, ('{"id":"1","event":"a"}', '{"id":"2","event":"a"}')),
    )
    assert first is not None
    assert second is not None
    assert await notices.leave(first)
    await backend.client.xadd(backend.keys.notices, {"x": "y"}, id=HIGHEST_ID)
    with pytest.raises(StoreError):
        await notices.leave(second)
    (waiting,) = await notices.waiting()
    await backend.client.xdel(backend.keys.notices, waiting.id)
    assert await notices.waiting() == []
    assert await notices.leave(second)
    assert [each.id > waiting.id for each in await notices.waiting()] == [True]


KEYS = [
    "meta",
    "leader",
    "slots",
    "watches",
    "pins",
    "config_pins",
    "demand",
    "lookups",
    "hints",
    "leader_status",
    "batch_digests",
    "log",
    "state",
]


@pytest.mark.parametrize("name", KEYS)
async def test_whatever_key_has_another_type_somebody_leads_and_writes(backend: Backend, name: str) -> None:
    old, _ = await log_of(backend, 3)
    await Slots(backend).take(old, 0, "cvm-1", 60)
    await Leadership(backend).resign(old)
    key = getattr(backend.keys, name)
    await backend.client.delete(key)
    await backend.client.xadd(key, {"x": "y"}) if name != "log" else await backend.client.set(key, "x")
    term = await lead(backend, "two")
    assert len(await Slots(backend).holdings()) == (MOST_SLOTS if name == "slots" else 1)
    assert await Slots(backend).take(term, 0, "cvm-2", 60) > 0
    written = await append(backend, term, WritePosition(term.sequence, term.last_id))
    await append(backend, term, written)
    await Leadership(backend).renew(term, 1, 0.3)
    position = await Log(backend).position()
    assert position is not None
    assert position.sequence == (2 if name == "meta" else 5)


@pytest.mark.parametrize("field", ["sequence", "last_id", "floor", "floor_sequence", "trimmed", "born_at", "birth"])
@pytest.mark.parametrize("value", ["words", "nan", "inf", "1e300", b"\xff\xfe", HIGHEST_ID])
async def test_whatever_the_logs_record_holds_somebody_leads_and_writes(
    backend: Backend, field: str, value: str | bytes
) -> None:
    old, _ = await log_of(backend, 3)
    await Leadership(backend).resign(old)
    await backend.client.hset(backend.keys.meta, field, value)
    term = await lead(backend, "two")
    await append(backend, term, WritePosition(term.sequence, term.last_id))
    await Leadership(backend).renew(term, 1, 0.3)
    assert [event.sequence for event in await Log(backend).latest(1)] == [1 if term.born else 4]


@pytest.mark.parametrize("text", ["", "words", "[]", '{"deadline":1e999}', '{"since":null}', "[" * 2000, b"\xff"])
async def test_whatever_a_slots_record_holds_the_slot_is_not_free(backend: Backend, text: str | bytes) -> None:
    term, _ = await log_of(backend, 0)
    await backend.client.hset(backend.keys.slots, "0", text)
    assert [holding.index for holding in await Slots(backend).holdings()] == [0]
    assert await Slots(backend).take(term, 0, "cvm-2", 60) > 100
    assert [slot.state for slot in await Slots(backend).list()] == ["quarantined"] + ["free"] * 4
