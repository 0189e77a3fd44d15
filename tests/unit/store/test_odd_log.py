"""Odd values in the lease and in the log's record: somebody leads soon, and the log goes on if it can."""

from __future__ import annotations

import pytest

from bridge.events import Draft
from bridge.store.connection import Backend
from bridge.store.errors import FencedError, StoreError
from bridge.store.leadership import Leadership, Term
from bridge.store.log import HIGHEST_ID, Log
from bridge.store.log_writer import LogWriter, WritePosition
from bridge.store.repair import mend
from bridge.store.snapshots import Snapshot
from tests.fakes import HandClock

DRAFT = Draft("cvm.state", "cvm-1", "2026-11-24T16:00:00.000Z", '{"cvm_id":"cvm-1","sequence":"77"}')
SNAPSHOT = Snapshot("cvm-1", '{"status":"running"}', "running", "web", "s", "o")
LEASE = 10.0


async def lead(backend: Backend, clock: HandClock, holder: str) -> Term:
    """At the latest one lease after the last sign of another holder."""
    term = await Leadership(backend).acquire(holder, LEASE, f"log-{holder}")
    if not isinstance(term, Term):
        assert term <= LEASE
        clock.now += term + 0.001
        term = await Leadership(backend).acquire(holder, LEASE, f"log-{holder}")
    assert isinstance(term, Term)
    await mend(backend, term)
    return term


async def append(backend: Backend, term: Term, written: WritePosition | None = None) -> WritePosition:
    at = written or WritePosition(term.sequence, term.last_id)
    return await LogWriter(backend, 100).append(term, at, DRAFT, SNAPSHOT, ran=False)


async def log_of(backend: Backend, clock: HandClock, events: int) -> Term:
    """The first term, with so many events."""
    term = await lead(backend, clock, "one")
    written = WritePosition(term.sequence, term.last_id)
    for _ in range(events):
        clock.now += 1
        written = await append(backend, term, written)
    return term


async def sequences(backend: Backend) -> list[int]:
    return [event.sequence for event in await Log(backend).read("0-0", 100)]


ODD_LEASES: list[dict[str, str]] = [
    {"x": "y"},
    {"holder": "h"},
    {"holder": "h", "epoch": "7", "until": "words", "lease": "10000"},
    {"holder": "h", "epoch": "7", "until": "1e300", "lease": "1e300"},
    {"holder": "h", "epoch": "7", "until": "nan", "lease": "nan"},
    {"holder": "h", "epoch": "7", "until": "inf", "lease": "inf"},
    {"holder": "h", "epoch": "words", "until": "9e14", "lease": "10000"},
    {"holder": "h", "epoch": "7.5", "until": "9e14", "lease": "10000"},
    {"holder": "h", "epoch": "1e300", "until": "0", "lease": "-1"},
    {"holder": "h", "epoch": "7", "until": "9e14", "lease": "words"},
    {"epoch": "7", "until": "9e14"},
]


@pytest.mark.parametrize("fields", ODD_LEASES, ids=str)
async def test_a_lease_that_cannot_be_read_lasts_one_lease(
    backend: Backend, clock: HandClock, fields: dict[str, str]
) -> None:
    old = await log_of(backend, clock, 2)
    await backend.client.delete(backend.keys.leader)
    await backend.client.hset(backend.keys.leader, mapping=fields)
    assert isinstance(await Leadership(backend).acquire("two", LEASE, "log"), float)
    with pytest.raises(FencedError):
        await append(backend, old)
    term = await lead(backend, clock, "two")
    assert term.ran_out, "its holder may not have closed its streams"
    await Leadership(backend).renew(term, LEASE, 3)
    await append(backend, term)
    assert await sequences(backend) == [1, 2, 3]


async def test_a_lease_of_another_type_lasts_one_lease(backend: Backend, clock: HandClock) -> None:
    await log_of(backend, clock, 2)
    await backend.client.delete(backend.keys.leader)
    await backend.client.rpush(backend.keys.leader, "x")
    assert await Leadership(backend).acquire("two", LEASE, "log") == pytest.approx(LEASE)
    await append(backend, await lead(backend, clock, "two"))
    assert await sequences(backend) == [1, 2, 3]


WORDS = ["words", "", "-1", "1e300", "nan", "inf", "9" * 30, "1-2-3"]


@pytest.mark.parametrize("field", ["sequence", "last_id", "floor", "floor_sequence", "trimmed", "born_at", "writer"])
@pytest.mark.parametrize("value", [*WORDS, HIGHEST_ID, "0-0", "1"])
async def test_a_field_of_the_logs_record_that_cannot_be_read_is_told_by_the_entries(
    backend: Backend, clock: HandClock, field: str, value: str
) -> None:
    old = await log_of(backend, clock, 3)
    before = await Log(backend).position()
    await backend.client.hset(backend.keys.meta, field, value)
    await Log(backend).position()
    term = await lead(backend, clock, "two")
    assert (term.log_id, term.sequence) == (old.log_id, 3)
    assert before is not None
    assert term.last_id == before.id
    position = await Log(backend).position()
    assert position is not None
    assert position.low_water_sequence == 0
    await Leadership(backend).renew(term, LEASE, 3)
    await append(backend, term)
    assert await sequences(backend) == [1, 2, 3, 4]


@pytest.mark.parametrize("field", ["sequence", "last_id"])
async def test_a_leader_whose_logs_record_cannot_be_read_tells_it_and_ends(
    backend: Backend, clock: HandClock, field: str
) -> None:
    term = await log_of(backend, clock, 1)
    await backend.client.hset(backend.keys.meta, field, "words")
    assert await Log(backend).position() is None
    with pytest.raises(StoreError, match="the record of the log could not be read"):
        await Leadership(backend).renew(term, LEASE, 3)


@pytest.mark.parametrize("birth", ['a"b', "a\\b", "a\nb", "\x00", "ü"])
async def test_a_log_whose_id_cannot_be_read_is_followed_by_a_new_one(
    backend: Backend, clock: HandClock, birth: str
) -> None:
    await log_of(backend, clock, 3)
    before = await Log(backend).latest(1)
    clock.now -= 1000
    await backend.client.delete(backend.keys.leader)
    await backend.client.hset(backend.keys.meta, "birth", birth)
    term = await lead(backend, clock, "two")
    assert (term.born, term.sequence) == (True, 0)
    written = await append(backend, term)
    assert await sequences(backend) == [1]
    assert int(written.last_id.split("-")[0]) >= int(before[0].id.split("-")[0]), "ids go on growing"


@pytest.mark.parametrize("key", ["meta", "log"])
async def test_a_log_of_another_type_ends_the_term_and_goes_on_in_the_next(
    backend: Backend, clock: HandClock, key: str
) -> None:
    old = await log_of(backend, clock, 3)
    await backend.client.set(getattr(backend.keys, key), "not what belongs here")
    with pytest.raises(StoreError):
        await append(backend, old)
    term = await lead(backend, clock, "two")
    written = await append(backend, term)
    again = await append(backend, term, written)
    position = await Log(backend).position()
    assert position is not None
    if key == "log":
        # The events are lost; the numbers are not, and cursors below them are told.
        assert (position.log_id, position.sequence, position.id) == (old.log_id, 5, again.last_id)
        assert (position.low_water_sequence, position.trimmed) == (3, True)
        assert await sequences(backend) == [4, 5]
    else:
        assert await sequences(backend) == [1, 2]


@pytest.mark.parametrize("count", [1, 450])
async def test_a_log_that_a_strangers_entry_blocks_is_rebuilt_with_its_ids_and_numbers(
    backend: Backend, clock: HandClock, count: int
) -> None:
    old = await log_of(backend, clock, 3)
    client, keys = backend.client, backend.keys
    for _ in range(count):
        await client.xadd(keys.log, {"x": "y"})
    await client.xadd(keys.log, {"x": "y"}, id=HIGHEST_ID)
    await client.hset(keys.webhooks, mapping={"birth": old.log_id, "position": HIGHEST_ID})
    await client.xgroup_create(keys.log, "queue", HIGHEST_ID)
    before = await Log(backend).read("0-0", 1000)
    with pytest.raises(StoreError):
        await append(backend, old, WritePosition(3, before[-1].id))
    term = await lead(backend, clock, "two")
    assert (term.log_id, term.sequence, term.last_id) == (old.log_id, 3, before[-1].id)
    written = await append(backend, term)
    assert (await Log(backend).read("0-0", 1000))[:3] == before
    assert await sequences(backend) == [1, 2, 3, 4]
    assert await client.hget(keys.webhooks, "position") == before[-1].id
    ((_, entries),) = await client.xreadgroup("queue", "one", {keys.log: ">"})
    assert [entry for entry, _ in entries] == [written.last_id]
    assert not await client.exists(keys.rebuilt_log)


async def test_a_log_whose_own_last_entry_has_the_highest_id_is_followed_by_a_new_one(
    backend: Backend, clock: HandClock
) -> None:
    await log_of(backend, clock, 1)
    text = DRAFT.envelope(backend.keys.source, 2)
    await backend.client.xadd(backend.keys.log, {"event": text}, id=HIGHEST_ID)
    await backend.client.hset(backend.keys.meta, mapping={"sequence": 2, "last_id": HIGHEST_ID})
    term = await lead(backend, clock, "two")
    assert term.born
    await append(backend, term)
    assert await sequences(backend) == [1]


@pytest.mark.parametrize("key", ["state", "watches", "log"])
async def test_an_event_that_cannot_be_written_whole_is_not_written(
    backend: Backend, clock: HandClock, key: str
) -> None:
    term = await log_of(backend, clock, 2)
    before = await backend.client.hgetall(backend.keys.meta)
    await backend.client.set(getattr(backend.keys, key), "not what belongs here")
    with pytest.raises(StoreError):
        await append(backend, term, WritePosition(2, before["last_id"]))
    assert await backend.client.hgetall(backend.keys.meta) == before


async def test_keys_of_another_type_are_removed_and_what_has_a_state_stays_watched(
    backend: Backend, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    await log_of(backend, clock, 1)
    keys = backend.keys
    spoiled = [keys.watches, keys.pins, keys.config_pins, keys.demand, keys.lookups, keys.hints, keys.batch_digests]
    for key in spoiled:
        await backend.client.delete(key)
        await backend.client.set(key, "not what belongs here")
    await lead(backend, clock, "two")
    told = [record.__dict__["key"] for record in caplog.records if "another type" in record.message]
    assert sorted(told) == sorted(spoiled)
    assert await backend.client.zscore(keys.watches, "cvm-1") == clock.ms
    assert not await backend.client.exists(*[key for key in spoiled if key != keys.watches])
